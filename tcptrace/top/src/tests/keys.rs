//! What keys do to what is shown.

use super::{super::player::Order, LARGE, SMALL, Stage};
use tcptrace_model::moment::Moment;

#[test]
fn enter_leads_from_an_owner_to_one_life_and_escape_back() {
    let mut stage = Stage::played(SMALL);
    stage.press("3");
    let ranking = stage.screen();
    stage.press("\n");
    let list = stage.screen();
    assert!(list.contains("curl →:443:"), "{list}");
    stage.press("jj\n");
    let life = stage.screen();
    assert!(life.contains("owner curl pid 4711 uid 1000 (connect)"), "{life}");
    for state in ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"] {
        assert!(life.contains(state), "{life}");
    }
    stage.press("\x1b");
    assert!(stage.screen().contains("curl →:443:"));
    stage.press("h");
    assert_eq!(stage.screen(), ranking);
    stage.press("\x1b\x1b");
    assert_eq!(stage.screen(), ranking, "there is nothing behind it");
}

#[test]
fn a_state_leads_to_its_connections() {
    let mut stage = Stage::played(SMALL);
    stage.press("jjjjjjjj\n");
    let screen = stage.screen();
    assert!(screen.contains("CLOSE_WAIT: 52 known"), "{screen}");
    // The oldest first.
    let first = screen.lines().find(|line| line.contains("CLOSE_WAIT  ")).unwrap();
    assert!(first.contains("≥1m10s") && first.contains("leaky"), "{first}");
}

#[test]
fn what_is_pointed_at_stays_pointed_at() {
    let mut stage = Stage::played(SMALL);
    stage.press("3j");
    let before = stage.top.ui.spot();
    let goes = stage.top.lists.main.rows[before.selected].goes;
    // Another order, and more of them.
    stage.press("ss");
    let after = stage.top.ui.spot();
    assert_eq!(stage.top.lists.main.rows[after.selected].goes, goes);
}

#[test]
fn the_filter_line_shows_its_error_and_the_old_filter_stays() {
    let mut stage = Stage::played(SMALL);
    stage.press("7/-D 443\n");
    let screen = stage.screen();
    assert!(screen.contains("filter: -D 443"), "{screen}");
    stage.press("/");
    // It begins as what is in force.
    assert!(stage.screen().contains("filter: -D 443"));
    stage.press("x\n");
    let screen = stage.screen();
    assert!(screen.contains("filter: -D 443x"), "{screen}");
    let error = "'443x' is not a port: give 1 to 65535, ranges as 8000-8100, several with commas";
    assert!(screen.trim_end().ends_with(error), "{screen}");
    assert_eq!(stage.top.shown.text(), "-D 443", "in force");
    stage.press("\x1b");
    assert_eq!(stage.top.shown.text(), "-D 443");
    assert!(stage.top.ui.typing.is_none());
    // An empty one shows all.
    stage.press("/\x08\x08\x08\x08\x08\x08\n");
    assert!(stage.top.shown.is_all());
}

#[test]
fn lists_follow_the_filter_as_it_is_typed() {
    let mut stage = Stage::played(SMALL);
    stage.press("jjjjjjjj\n");
    assert!(stage.screen().contains("CLOSE_WAIT: 52 known"));
    stage.press("/--comm nobody");
    assert!(stage.screen().contains("CLOSE_WAIT: 0 known"), "{}", stage.screen());
    stage.press("\x1b");
    assert!(stage.screen().contains("CLOSE_WAIT: 52 known"), "as before");
}

#[test]
fn with_a_filter_the_states_are_of_what_it_keeps() {
    let mut stage = Stage::played(SMALL);
    stage.press("/--comm curl\n");
    stage.tell("71000ms tick\n72500ms tick\n");
    let screen = stage.screen();
    let now = |state: &str| {
        let line = screen.lines().find(|line| line.starts_with(state)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((now("LISTEN"), now("CLOSE_WAIT")), ("0".to_owned(), "0".to_owned()), "{screen}");
    assert_ne!(now("TIME_WAIT"), "0", "{screen}");
}

#[test]
fn space_holds_the_stream_and_says_what_went_by() {
    let mut stage = Stage::played(LARGE);
    stage.press("7 ");
    let before = stage.screen();
    stage.tell(
        "70001ms sk=fff1 CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n\
         70002ms sk=fff1 SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n",
    );
    let held = stage.screen();
    assert!(held.contains("2 went by while it held still"), "{held}");
    let stream = |screen: &str| -> Vec<String> {
        screen
            .lines()
            .skip(4)
            .filter(|line| line.contains(" -> ") || line.contains("10.0."))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(stream(&held), stream(&before));
    stage.press(" ");
    stage.tell("70003ms sk=fff1 ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n");
    assert!(stage.screen().contains("10.0.0.1:7"));
}

#[test]
fn the_stream_stays_where_it_was_scrolled_to() {
    let mut stage = Stage::played(SMALL);
    stage.press("7kkkkkkkkkkkkkkkkkkkkkkkkkkkkkk");
    let before: Vec<String> = stage.screen().lines().skip(3).take(10).map(str::to_owned).collect();
    stage.tell("70001ms sk=fff1 CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n");
    let after: Vec<String> = stage.screen().lines().skip(3).take(10).map(str::to_owned).collect();
    assert_eq!(before, after);
    stage.press("G");
    assert!(stage.screen().contains("10.0.0.2:443"), "the newest");
    stage.press("g");
    assert!(stage.screen().contains("\n1 of ") || stage.screen().contains("1 of "));
}

#[test]
fn a_click_points_and_a_second_one_enters() {
    use ratatui::crossterm::event::{Event, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
    let mut stage = Stage::played(SMALL);
    let click = |stage: &mut Stage, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        let modifiers = KeyModifiers::NONE;
        stage.top.event(&Event::Mouse(MouseEvent { kind, column, row, modifiers }));
        stage.frame();
    };
    // The third tab.
    let at = stage.screen().lines().nth(2).unwrap().find("Closers").unwrap();
    click(&mut stage, at as u16, 2);
    assert!(stage.screen().contains("PROCESS :PORT"));
    click(&mut stage, 3, 5);
    assert_eq!(stage.top.ui.spot().selected, 1);
    click(&mut stage, 3, 5);
    assert!(matches!(stage.top.ui.spot().what, super::super::ui::What::Among(_)));
    // Where nothing is, nothing happens.
    click(&mut stage, 79, 23);
    click(&mut stage, 500, 500);
}

#[test]
fn a_recording_is_told_what_to_do() {
    let mut stage = Stage::played(SMALL);
    stage.press(".");
    assert!(stage.screen().contains("-r FILE"), "not of what happens now");
    stage.top.set_player(super::super::Player::new((0, 90_000_000_000)));
    let order = |stage: &mut Stage, keys: &str| {
        stage.press(keys);
        stage.top.player().unwrap().take_order()
    };
    assert_eq!(order(&mut stage, "]"), Some(Order::By(10)));
    assert_eq!(order(&mut stage, "{"), Some(Order::By(-60)));
    assert!(stage.top.player().unwrap().is_playing());
    assert_eq!(order(&mut stage, "."), Some(Order::Step));
    assert!(!stage.top.player().unwrap().is_playing(), "a step is one");
    stage.press(" ++");
    let player = stage.top.player().unwrap();
    assert!(player.is_playing());
    assert_eq!(player.speed(), 5.0);
    let moment: Moment = "-30s".parse().unwrap();
    assert_eq!(order(&mut stage, "@-30s\n"), Some(Order::To(moment)));
    assert_eq!(order(&mut stage, "@soon\n"), None);
    assert!(stage.screen().contains("'soon' is not a moment"), "{}", stage.screen());
    stage.press("\x1b");
    // At its end it begins again.
    stage.top.player().unwrap().reached(90_000_000_000, true);
    let begin = Moment::After(std::time::Duration::ZERO);
    assert_eq!(order(&mut stage, " "), Some(Order::To(begin)));
}

#[test]
fn quit_is_said_to_who_listens() {
    use tcptrace_view::View as _;
    let mut stage = Stage::played(SMALL);
    assert!(!stage.top.is_done());
    stage.press("?q");
    assert!(!stage.top.is_done(), "it closed the help");
    stage.press("q");
    assert!(stage.top.is_done());
}

#[test]
fn the_help_fits_eighty_columns() {
    for line in super::super::help::LINES {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
