#!/usr/bin/env python3
"""Render the terminal recording in README.md from a real run.

Plays an incident in a network namespace of its own: a client that opens one connection per request
runs out of ephemeral ports. A shell in tmux then types the commands of SCENES; each screen is
captured with its colors and becomes one frame of an animated SVG, for a dark and for a light
background. Nothing is typed in by hand: to change the picture, change tcptrace and run this again.

    cargo build --release && sudo python3 xtask/picture.py target/release/tcptrace

Needs root, tmux and python3. Takes about a minute: the ports must run out first.
"""

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COLUMNS, LINES = 84, 25
SECONDS_PER_FRAME = 6
OUT = Path(__file__).resolve().parent.parent / "docs" / "pictures"

SERVER = """
import socket
open("/proc/self/comm", "w").write("payments")
listener = socket.create_server(("10.0.0.2", 8080), backlog=512)
while True:
    connection, _ = listener.accept()
    connection.recv(100)
    connection.sendall(b"ok")
    connection.recv(1)
    connection.close()
"""

CLIENT = """
import socket, time
open("/proc/self/comm", "w").write("shop")
while True:
    try:
        connection = socket.create_connection(("10.0.0.2", 8080), timeout=2)
    except OSError:
        time.sleep(0.01)
        continue
    connection.sendall(b"charge")
    connection.recv(100)
    connection.close()
"""

# Few enough that they run out while you watch, on a slow machine too.
PORTS = ("32768 40959", 8192)

# What is typed, and for how long it may take. `top` does not return to the prompt: keys end it.
SCENES = [
    ("tcptrace doctor -N shop-host | head -20", None),
    ("tcptrace ports 2 2 -N shop-host", None),
    ("tcptrace closers -r incident.tcptrace", None),
    ("tcptrace top -N shop-host", ["1"]),
]

PALETTES = {
    "dark": {
        "background": "#0d1117", "text": "#c9d1d9", "dim": "#8b949e", "bar": "#161b22",
        "colors": ["#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
                   "#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff"],
    },
    "light": {
        "background": "#ffffff", "text": "#24292f", "dim": "#6e7781", "bar": "#f6f8fa",
        "colors": ["#24292f", "#cf222e", "#116329", "#7d4e00", "#0969da", "#8250df", "#1b7c83", "#6e7781",
                   "#57606a", "#a40e26", "#1a7f37", "#633c01", "#218bff", "#a475f9", "#3192aa", "#8c959f"],
    },
}


class Terminal:
    """A shell in tmux, inside the namespaces of the incident."""

    def __init__(self, folder, command):
        self.socket = str(folder / "tmux")
        shell = f"{command} env PS1='$ ' PATH={folder}:$PATH TERM=screen-256color bash --norc --noprofile"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), shell)

    def tmux(self, *arguments):
        run = subprocess.run(["tmux", "-S", self.socket, *arguments], check=True, capture_output=True, text=True)
        return run.stdout

    def screen(self, *flags):
        return self.tmux("capture-pane", "-p", *flags)

    def at_prompt(self):
        lines = self.screen().rstrip("\n").splitlines()
        return bool(lines) and lines[-1].rstrip() == "$"

    def wait_for_prompt(self, seconds):
        deadline = time.monotonic() + seconds
        while not self.at_prompt():
            if time.monotonic() > deadline:
                raise SystemExit("no prompt came back; the screen has:\n" + self.screen())
            time.sleep(0.1)

    def play(self, command, keys):
        self.tmux("send-keys", "clear", "Enter")
        time.sleep(0.5)
        self.wait_for_prompt(5)
        # The first line says what is typed; tmux may scroll it away.
        self.tmux("send-keys", command, "Enter")
        if keys is None:
            time.sleep(0.5)
            self.wait_for_prompt(60)
            return self.screen("-e")
        time.sleep(12)
        for key in keys:
            self.tmux("send-keys", key)
            time.sleep(1.5)
        screen = self.screen("-e")
        self.tmux("send-keys", "q")
        self.wait_for_prompt(10)
        return screen

    def close(self):
        self.tmux("kill-server")


def runs(line):
    """Splits a captured line into (column, text, style); style is a dict of SGR attributes."""
    style, column = {}, 0
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        sgr = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if sgr is None:
            if piece:
                yield column, piece, dict(style)
                column += len(piece)
            continue
        codes = [int(code or 0) for code in sgr[1].split(";")]
        while codes:
            code = codes.pop(0)
            if code == 0:
                style.clear()
            elif code in (1, 2, 7):
                style[code] = True
            elif code in (22, 27):
                for off in ((1, 2) if code == 22 else (7,)):
                    style.pop(off, None)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                style["fg"] = code - 30 if code < 90 else code - 82
            elif 40 <= code <= 47 or 100 <= code <= 107:
                style["bg"] = code - 40 if code < 100 else code - 92
            elif code == 39:
                style.pop("fg", None)
            elif code == 49:
                style.pop("bg", None)
            elif code in (38, 48) and codes[:1] == [5]:
                style["fg" if code == 38 else "bg"] = codes[1] % 16
                codes = codes[2:]


WIDTH, HEIGHT, LEFT, TOP = 8.4, 18, 16, 46


def frame(screen, palette):
    out = []
    for row, line in enumerate(screen.rstrip("\n").splitlines()[:LINES]):
        y = TOP + row * HEIGHT
        for column, text, style in runs(line):
            color = palette["colors"][style["fg"]] if "fg" in style else palette["text"]
            back = palette["colors"][style["bg"]] if "bg" in style else None
            if style.get(7):
                color, back = back or palette["background"], color
            if style.get(2) and "fg" not in style:
                color = palette["dim"]
            x = LEFT + column * WIDTH
            length = len(text) * WIDTH
            if back:
                out.append(f'<rect x="{x:.1f}" y="{y - 13}" width="{length:.1f}" height="{HEIGHT}" fill="{back}"/>')
            if not text.strip():
                continue
            bold = ' font-weight="bold"' if style.get(1) else ""
            fill = f' fill="{color}"' if color != palette["text"] else ""
            out.append(f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}"{fill}{bold}>{html.escape(text)}</text>')
    return "\n".join(out)


def svg(screens, palette):
    width, height = LEFT * 2 + COLUMNS * WIDTH, TOP + LINES * HEIGHT
    share, total = 100 / len(screens), SECONDS_PER_FRAME * len(screens)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="tcptrace finds a client that runs out of ephemeral ports">',
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre;"
        f"fill:{palette['text']}}}.f{{visibility:hidden;animation:show {total}s steps(1) infinite}}"
        f"@keyframes show{{0%{{visibility:visible}}{share:.3f}%{{visibility:hidden}}}}"
        "@media(prefers-reduced-motion){.f{animation:none}.f:first-of-type{visibility:visible}}",
        "".join(f".f:nth-of-type({n + 1}){{animation-delay:{n * SECONDS_PER_FRAME}s}}" for n in range(len(screens))),
        "</style>",
        f'<rect width="100%" height="100%" rx="8" fill="{palette["background"]}"/>',
        f'<path d="M0 8a8 8 0 0 1 8-8h{width - 16:.0f}a8 8 0 0 1 8 8v20H0z" fill="{palette["bar"]}"/>',
    ]
    for n, color in enumerate(["#ff5f57", "#febc2e", "#28c840"]):
        parts.append(f'<circle cx="{18 + n * 18}" cy="14" r="5" fill="{color}"/>')
    # The styles above must beat `text{fill}`: a presentation attribute does not, so say it as a style.
    for screen in screens:
        body = re.sub(r'( fill="(#[0-9a-f]+)")(?=[^>]*>[^<])', r' style="fill:\2"', frame(screen, palette))
        parts.append(f'<g class="f">\n{body}\n</g>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def wait_until_ports_run_out(netns):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        count = subprocess.run(["ip", "netns", "exec", netns, "ss", "-tanH", "state", "time-wait"],
                               check=True, capture_output=True, text=True).stdout.count("\n")
        if count >= PORTS[1] * 0.8:
            return
        time.sleep(1)
    raise SystemExit("the client did not use up its ports within two minutes")


def main():
    if len(sys.argv) != 2 or os.geteuid() != 0 or not shutil.which("tmux"):
        raise SystemExit(__doc__)
    program = Path(sys.argv[1]).resolve(strict=True)
    here, there = "shop-host", "payments-host"
    ip = lambda *words: subprocess.run(["ip", *words], check=True)
    children, terminal = [], None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tcptrace").symlink_to(program)
        try:
            for netns in (here, there):
                ip("netns", "add", netns)
            ip("link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", "eth0", "netns", there)
            for netns, address in ((here, "10.0.0.1/24"), (there, "10.0.0.2/24")):
                ip("-n", netns, "address", "add", address, "dev", "eth0")
                ip("-n", netns, "link", "set", "eth0", "up")
            subprocess.run(["nsenter", f"--net=/run/netns/{here}", "sysctl", "-qw",
                            f"net.ipv4.ip_local_port_range={PORTS[0]}"], check=True)
            recorder = subprocess.Popen([program, "record", "-N", here, folder / "incident.tcptrace"],
                                        stderr=subprocess.DEVNULL)
            children.append(recorder)
            for netns, code in ((there, SERVER), (here, CLIENT)):
                children.append(subprocess.Popen(["ip", "netns", "exec", netns, sys.executable, "-c", code]))
                time.sleep(1)
            # `ip netns exec` hides tracefs and the cgroups; nsenter does not.
            terminal = Terminal(folder, f"nsenter --net=/run/netns/{here}")
            terminal.wait_for_prompt(10)
            wait_until_ports_run_out(here)
            terminal.tmux("send-keys", f"cd {folder}", "Enter")
            screens = [terminal.play(command, keys) for command, keys in SCENES]
        finally:
            if terminal:
                terminal.close()
            for child in children:
                child.kill()
                child.wait()
            for netns in (here, there):
                subprocess.run(["ip", "netns", "delete", netns], check=False)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, palette in PALETTES.items():
        (OUT / f"incident-{name}.svg").write_text(svg(screens, palette))
    print(f"wrote {OUT}/incident-{{dark,light}}.svg")


if __name__ == "__main__":
    main()
