//! `cargo xtask run` as people meet it, on a workspace that compiles in a moment: what it builds and
//! starts, what it says meanwhile, and the one line that it ends with where the machine lacks
//! something.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A workspace with a `tcptrace` that says what it was built with and how it was called.
struct Workspace {
    dir: PathBuf,
}

const MAIN: &str = r#"
fn main() {
    let features = [
        ("export", cfg!(feature = "export")),
        ("report", cfg!(feature = "report")),
        ("release", !cfg!(debug_assertions)),
    ];
    let on: Vec<_> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    println!("with [{}]: {}", on.join(" "), arguments.join(" "));
}
"#;

impl Workspace {
    /// Named for its test, as tests run at the same time; `rest` ends the manifest.
    fn new(name: &str, rest: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("xtask-run-{name}"));
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::create_dir_all(dir.join("src")).unwrap();
        fs::create_dir_all(dir.join("target/debug")).unwrap();
        let workspace = Self { dir };
        workspace.write("src/main.rs", MAIN);
        workspace.write(
            "Cargo.toml",
            &format!(
                "[workspace]\n[package]\nname = \"tcptrace\"\nversion = \"0.1.0\"\n\
                 edition = \"2021\"\n[features]\ndefault = [\"export\", \"report\"]\n\
                 export = []\nreport = []\n{rest}"
            ),
        );
        workspace.write(
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"tcptrace\"\nversion = \"0.1.0\"\n",
        );
        // By its own place it knows the target directory. A copy that this process writes could not be
        // started while a child of another test, just forked, still has it open (ETXTBSY).
        fs::hard_link(env!("CARGO_BIN_EXE_xtask"), workspace.dir.join("target/debug/xtask"))
            .unwrap();
        workspace
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).unwrap();
    }

    /// Makes `anyhow` a dependency, which this test's own build has downloaded.
    fn depend_on_anyhow(&self) {
        let lock =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        let package =
            lock.split("[[package]]\n").find(|p| p.starts_with("name = \"anyhow\"")).unwrap();
        let version = package.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
        let manifest = fs::read_to_string(self.dir.join("Cargo.toml")).unwrap();
        self.write("Cargo.toml", &format!("{manifest}\n[dependencies]\nanyhow = {version}\n"));
        self.write(
            "Cargo.lock",
            &format!(
                "version = 4\n[[package]]\n{package}[[package]]\nname = \"tcptrace\"\n\
                 version = \"0.1.0\"\ndependencies = [\"anyhow\"]\n"
            ),
        );
    }

    /// `cargo xtask ARGUMENTS` in it.
    fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("target/debug/xtask"));
        command
            .args(arguments)
            .env("CARGO_MANIFEST_DIR", self.dir.join("xtask"))
            .env_remove("CARGO_TARGET_DIR")
            .stdin(Stdio::null());
        command
    }

    /// What it prints on standard output, where it ends well.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.xtask(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line of its error.
    fn refuses(command: &mut Command) -> String {
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let errors: Vec<_> = stderr.lines().filter(|line| line.contains("error")).collect();
        let [error] = errors[..] else { panic!("not one error:\n{stderr}") };
        assert_eq!(stderr.lines().last(), Some(error), "{stderr}");
        error.strip_prefix("error: ").unwrap().to_owned()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // One that failed can be looked at.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where cargo and rustc are, and no C compiler.
fn tool_chain() -> PathBuf {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    Path::new(String::from_utf8(output.stdout).unwrap().trim()).join("bin")
}

#[test]
fn a_command_is_built_with_its_feature_and_gets_its_arguments() {
    let workspace = Workspace::new("features", "");
    assert_eq!(workspace.prints(&["run", "explain", "-x"]), "with []: explain -x\n");
    assert_eq!(workspace.prints(&["run", "report", "-r", "f"]), "with [report]: report -r f\n");
    assert_eq!(workspace.prints(&["run", "man"]), "with [export report]: man\n");
    let release = workspace.prints(&["run", "--release", "explain"]);
    assert_eq!(release, "with [export report release]: explain\n");
}

#[test]
fn a_configured_target_is_no_obstacle() {
    let workspace = Workspace::new("target", "");
    let host = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let output = workspace
        .xtask(&["run", "explain"])
        .env("CARGO_BUILD_TARGET", host.trim())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "with []: explain\n");
}

#[test]
fn a_long_compilation_is_not_silent() {
    let workspace = Workspace::new("progress", "");
    // It compiles until it is told to end: by a file, once the line was there.
    workspace.write(
        "build.rs",
        "fn main() { while !std::path::Path::new(\"seen\").exists() { std::thread::sleep(\
         std::time::Duration::from_millis(20)) } }",
    );
    let mut run = workspace.xtask(&["run", "explain"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.starts_with("building: ")).unwrap();
    workspace.write("seen", "");
    let (count, rest) = line.strip_prefix("building: ").unwrap().split_once(" of ").unwrap();
    assert_eq!(count.parse::<u32>().unwrap(), 1, "{line}");
    assert!(rest.starts_with("3 steps, now tcptrace(build), "), "{line}");
    assert!(lines.any(|line| line.contains("Finished")));
    assert!(run.wait().unwrap().success());
}

#[test]
fn an_error_in_the_code_is_cargos_to_say() {
    let workspace = Workspace::new("code", "");
    workspace.write("src/main.rs", "fn main() { nonsense() }");
    let output = workspace.xtask(&["run"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("error[E0425]: cannot find function `nonsense`"), "{stderr}");
    assert!(stderr.contains("--> src/main.rs:1:13"), "{stderr}");
    assert!(
        stderr.ends_with("error: cannot build tcptrace: see above (exit status: 101)\n"),
        "{stderr}"
    );
}

#[test]
fn without_a_c_compiler_it_says_what_to_install() {
    let workspace = Workspace::new("cc", "");
    let error = Workspace::refuses(workspace.xtask(&["run"]).env("PATH", tool_chain()));
    assert!(error.starts_with("`cc` was not found"), "{error}");
    assert!(error.contains("apt install gcc"), "{error}");
}

#[test]
fn with_too_old_a_rustc_it_says_which_and_how_to_update() {
    let workspace = Workspace::new("rustc", "");
    let manifest = fs::read_to_string(workspace.dir.join("Cargo.toml")).unwrap();
    workspace
        .write("Cargo.toml", &manifest.replace("edition", "rust-version = \"1.999\"\nedition"));
    let error = Workspace::refuses(&mut workspace.xtask(&["run"]));
    assert!(error.starts_with("rustc 1."), "{error}");
    assert!(
        error.contains(" is too old: tcptrace needs rustc 1.999 or later; `rustup update"),
        "{error}"
    );
}

#[test]
fn crates_are_downloaded_once_and_then_no_network_is_needed() {
    let workspace = Workspace::new("network", "");
    workspace.depend_on_anyhow();
    // Nothing answers there.
    let mut offline = workspace.xtask(&["run", "explain"]);
    offline.env("CARGO_HTTP_PROXY", "http://127.0.0.1:1").env("CARGO_NET_RETRY", "0");
    let output = offline.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let empty = workspace.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let mut nothing = workspace.xtask(&["run", "explain"]);
    nothing.env("CARGO_HOME", &empty);
    for (name, _) in env::vars_os() {
        // What leads to a registry elsewhere.
        if name.to_string_lossy().starts_with("CARGO_REGISTR") {
            nothing.env_remove(name);
        }
    }
    nothing.env("CARGO_HTTP_PROXY", "http://127.0.0.1:1").env("CARGO_NET_RETRY", "0");
    let error = Workspace::refuses(&mut nothing);
    assert!(error.starts_with("cannot download the crates that this needs ("), "{error}");
    assert!(error.contains("127.0.0.1") || error.contains("onnect"), "{error}");
    assert!(error.contains("cargo fetch --locked"), "{error}");
}

/// In a user namespace of its own, where anybody may mount a tmpfs that holds a megabyte.
#[test]
fn on_a_full_disk_it_says_which_and_what_to_do() {
    let workspace = Workspace::new("disk", "");
    let mut namespace = Command::new("unshare");
    namespace.args(["--user", "--map-root-user", "--mount"]);
    if !namespace.arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no user namespaces here, so no small disk to fill");
        return;
    }
    let xtask = workspace.dir.join("target/debug/xtask");
    let size = fs::metadata(&xtask).unwrap().len() / 1024 + 1024;
    let target = workspace.dir.join("target");
    let script = format!(
        "cp {xtask} {dir}/xtask-copy && mount -t tmpfs -o size={size}k none {target} && \
         mkdir {target}/debug && mv {dir}/xtask-copy {xtask} && exec {xtask} run",
        xtask = xtask.display(),
        dir = workspace.dir.display(),
        target = target.display(),
    );
    let mut full = Command::new("unshare");
    full.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .env("CARGO_MANIFEST_DIR", workspace.dir.join("xtask"))
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null());
    let error = Workspace::refuses(&mut full);
    assert!(error.starts_with("the disk is full (0 MB left on /"), "{error}");
    assert!(error.contains("xtask-run-disk/target)"), "{error}");
    assert!(error.contains("CARGO_TARGET_DIR"), "{error}");
}
