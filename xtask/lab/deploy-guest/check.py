"""The checks of `cargo xtask deploy-test`, run as root in the guest by deploy-check.service: the
package that is installed, and tcptrace.service under the systemd that is PID 1.

It prints what libtest prints (`test NAME ... ok`), figures as `@@vm` lines, and at the end the line
with the nonce that the host waits for. The checks go on from one another, in the order of the file,
as an administrator would: install, start, use, restart, break, stop, remove. It knows nothing of how
the guest was made, and needs no module that Debian's python3-minimal lacks.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback

PACKAGE = "tcptrace-ebpf"
UNIT = "tcptrace.service"
PORT = 9718
OPTIONS = "/etc/default/tcptrace"
STATE = "/var/lib/tcptrace"
DEB = "/opt/deploy/tcptrace.deb"

# The bits of these capabilities (include/uapi/linux/capability.h).
DAC_READ_SEARCH, SYS_PTRACE, SYS_ADMIN = 1 << 2, 1 << 19, 1 << 21
BOUNDING = DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN | 1 << 34 | 1 << 38 | 1 << 39

TCSBRK = 0x5409

# What docs/SERVE.md names; a unit that lets more through must not pass unnoticed.
SCORE = 3.3

# All that the journal may say. Anything else is a warning that should not be there, or new, and then
# it is to be read by somebody before it gets into this list.
EXPECTED = [
    r"Start(ing|ed) tcptrace\.service - Tracer of TCP state transitions\.(\.\.)?",
    r"Stopp(ing|ed) tcptrace\.service - Tracer of TCP state transitions\.(\.\.)?",
    r"tcptrace\.service: Deactivated successfully\.",
    r"tcptrace\.service: Consumed .* CPU time\.",
    # It has no CAP_NET_ADMIN, which the self-test alone would need: docs/SERVE.md says so.
    r"tcptrace: self-test not run: a network namespace was made, but a loopback that is up in it "
    r"takes CAP_NET_ADMIN: Operation not permitted \(os error 1\)",
    r"tcptrace: serving at http://127\.0\.0\.1:9718",
    r"tcptrace: listening by tp_btf, TIME_WAIT by functions; Ctrl-C ends",
]


class Failed(Exception):
    """A check that found something wrong."""


def run(*command, code=0):
    """What a program said on both outputs; it must end with `code`, if that is not None."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if code is not None and done.returncode != code:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()


def until(what, condition, seconds=30):
    """Waits for something true, and returns it."""
    deadline = time.monotonic() + seconds
    trouble = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except OSError as error:
            trouble = error
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what} ({trouble or 'it was not so'})")
        time.sleep(0.05)


def equal(what, found, expected):
    if found != expected:
        raise Failed(f"{what}: {found!r}, not {expected!r}")


def fact(kind, **values):
    print(f"@@vm {kind} " + " ".join(f'{key}="{value}"' for key, value in values.items()))


def shown(name):
    """A property of the unit."""
    return run("systemctl", "show", "--property", name, "--value", UNIT)


def get(path):
    """Status and body of an answer of tcptrace."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        raise Failed("a chunked answer: teach this function to read it")
    return int(head.split()[1]), body.decode()


def metrics():
    """Samples by name and labels, as Prometheus would take them."""
    status, text = get("/metrics")
    equal("/metrics", status, 200)
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def total(samples, name):
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


def ready():
    until("/readyz answers 200", lambda: get("/readyz")[0] == 200, 60)


def status(path):
    """/proc/…/status as a dictionary; None when there is no such process any more."""
    try:
        with open(f"{path}/status") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except (FileNotFoundError, ProcessLookupError):
        return None


def processes():
    """The main process of the unit, and its helper."""
    main = int(shown("MainPID"))
    inside = status(f"/proc/{main}") if main else None
    if not inside:
        raise Failed("the unit has no main process")
    found = (pid for pid in os.listdir("/proc") if pid.isdigit())
    states = ((int(pid), status(f"/proc/{pid}")) for pid in found)
    helpers = [pid for pid, of in states if of and of["PPid"] == str(main)]
    equal("children of the main process", len(helpers), 1)
    return main, helpers[0]


def gone(pid):
    found = status(f"/proc/{pid}")
    return found is None or found["State"].startswith("Z")


def journal(since):
    return run("journalctl", "--quiet", "--output", "cat", "--unit", UNIT, "--after-cursor", since)


def cursor():
    """Where the journal is now, with all in it that was said before."""
    run("journalctl", "--sync")
    said = run("journalctl", "--quiet", "--lines", "0", "--show-cursor")
    return said.rpartition("-- cursor: ")[2]


def listen(address="127.0.0.1"):
    listener = socket.create_server((address, 0), backlog=1024)
    return listener, listener.getsockname()[1]


def connections(count):
    """Connections on loopback whose client closes first."""
    listener, port = listen()
    with listener:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            server, _ = listener.accept()
            client.close()
            equal("what is read at the end", server.recv(1), b"")
            server.close()


def tables(state):
    """Sockets in a state, of both namespaces, by `ss`."""
    command = ["ss", "-Htan", "state", state]
    here, there = run(*command), run("ip", "netns", "exec", "other", *command)
    return len(here.splitlines()) + len(there.splitlines())


def systemd_is_pid_1():
    with open("/proc/1/comm") as comm:
        equal("PID 1", comm.read().strip(), "systemd")
    state = until("the end of the boot", settled, 120)
    failed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    equal("units that failed", failed, "")
    fact("machine", kernel=os.uname().release, state=state,
         systemd=run("systemctl", "--version").split("\n")[0])


def settled():
    state = run("systemctl", "is-system-running", code=None)
    return state if state in ("running", "degraded") else None


def package_is_whole():
    equal("dpkg -V", run("dpkg", "-V", PACKAGE), "")
    files = run("dpkg", "-L", PACKAGE).splitlines()
    for file in ["/usr/bin/tcptrace", "/usr/lib/systemd/system/tcptrace.service", OPTIONS,
                 "/usr/share/man/man1/tcptrace.1.gz",
                 "/usr/share/bash-completion/completions/tcptrace",
                 "/usr/share/zsh/vendor-completions/_tcptrace",
                 "/usr/share/fish/vendor_completions.d/tcptrace.fish",
                 f"/usr/share/doc/{PACKAGE}/copyright"]:
        if file not in files or not os.path.getsize(file):
            raise Failed(f"{file} is not in the package, or empty")
    for file in files:
        found = os.stat(file)
        if found.st_uid or found.st_gid or found.st_mode & 0o022:
            raise Failed(f"{file}: not of root alone: {found}")
    run("gzip", "--test", "/usr/share/man/man1/tcptrace.1.gz")
    run("bash", "-n", "/usr/share/bash-completion/completions/tcptrace")
    fact("package", version=run("dpkg-query", "-W", "-f", "${Version}", PACKAGE),
         runs=run("/usr/bin/tcptrace", "--version"))


def debian_s_tcptrace_is_refused():
    root = "/run/other-tcptrace"
    os.makedirs(f"{root}/DEBIAN")
    with open(f"{root}/DEBIAN/control", "w") as control:
        control.write("Package: tcptrace\nVersion: 99\nArchitecture: all\n"
                      "Maintainer: nobody <nobody@localhost>\nDescription: stands for Debian's\n")
    run("dpkg-deb", "--build", root, f"{root}.deb")
    said = run("dpkg", "--install", f"{root}.deb", code=1)
    if "conflict" not in said:
        raise Failed(f"refused for another reason: {said}")


def unit_is_sound():
    # --man=no: there is no man in the guest that could look for the page.
    equal("systemd-analyze verify", run("systemd-analyze", "verify", "--man=no", UNIT), "")
    equal("whether it is enabled by its mere installation",
          run("systemctl", "is-enabled", UNIT, code=1), "disabled")
    said = run("systemctl", "enable", UNIT)
    equal("is-enabled", run("systemctl", "is-enabled", UNIT), "enabled")
    if "multi-user.target.wants" not in said:
        raise Failed(said)


class Before:
    """What was there before tcptrace, kept from its start on: a process with sockets in a namespace
    of their own, found only by entering it; and where the journal was."""


def it_starts():
    run("ip", "netns", "add", "other")
    run("ip", "-n", "other", "link", "set", "lo", "up")
    program = ("import socket,time; l=socket.create_server(('127.0.0.1',7)); "
               "c=socket.create_connection(('127.0.0.1',7)); s=l.accept(); print('x',flush=True); "
               "time.sleep(1e6)")
    Before.other = subprocess.Popen(["ip", "netns", "exec", "other", sys.executable, "-c", program],
                                    stdout=subprocess.PIPE)
    Before.other.stdout.read(1)
    Before.cursor = cursor()
    begin = time.monotonic()
    run("systemctl", "start", UNIT)
    equal("is-active", run("systemctl", "is-active", UNIT), "active")
    ready()
    fact("start", seconds=f"{time.monotonic() - begin:.2f}")


def no_process_is_root():
    for pid in processes():
        found = status(f"/proc/{pid}")
        for kind in ("Uid", "Gid"):
            if "0" in found[kind].split():
                raise Failed(f"{found['Name']}: {kind} {found[kind]}")
    equal("DynamicUser", shown("DynamicUser"), "yes")


def capabilities_and_seccomp_are_as_documented():
    main, helper = processes()
    equal("the helper's name", status(f"/proc/{helper}")["Name"], "tcptrace-tables")
    looks = DAC_READ_SEARCH | SYS_PTRACE
    allowed = {"tcptrace-tables": looks | SYS_ADMIN, "cgroups": DAC_READ_SEARCH}
    count = 0
    for pid in (main, helper):
        for task in os.listdir(f"/proc/{pid}/task"):
            found = status(f"/proc/{pid}/task/{task}")
            held = allowed[found["Name"]] if pid == helper else 0
            expected = {"CapPrm": held, "CapEff": held, "CapInh": 0, "CapAmb": 0}
            for kind, bits in expected.items():
                equal(f"{found['Name']}: {kind}", f"{int(found[kind], 16):#x}", f"{bits:#x}")
            if int(found["CapBnd"], 16) & ~BOUNDING:
                raise Failed(f"{found['Name']}: CapBnd {found['CapBnd']}")
            equal(f"{found['Name']}: Seccomp", found["Seccomp"], "2")
            equal(f"{found['Name']}: NoNewPrivs", found["NoNewPrivs"], "1")
            count += 1
    fact("threads", count=count)


def it_answers():
    for path in ("/healthz", "/readyz", "/api/v1/states", "/"):
        equal(path, get(path)[0], 200)
    samples = metrics()
    hooks = {key: value for key, value in samples.items() if key.startswith("tcptrace_hook_attached")}
    fact("hooks", attached=" ".join(key[len("tcptrace_hook_attached"):].replace('"', "")
                                    for key in sorted(hooks)))
    if len(hooks) < 4 or min(hooks.values()) != 1 or any('"none"' in key for key in hooks):
        raise Failed(f"not all hooks are attached: {hooks}")
    time_wait = [key for key in hooks if "time" in key and "wait" in key]
    if not any("twsk" in key or "function" in key or "timer" in key for key in time_wait):
        raise Failed(f"TIME_WAIT is followed by neither functions nor timers: {hooks}")
    equal("helper_up", samples["tcptrace_helper_up"], 1)
    fact("memory", main=int(samples["process_resident_memory_bytes"]) >> 10,
         helper=int(samples["tcptrace_helper_resident_memory_bytes"]) >> 10, unit="KiB")


def a_reload_ends_nothing():
    before = processes()
    run("systemctl", "reload", UNIT)
    equal("processes", processes(), before)
    equal("Result", shown("Result"), "success")


def sockets_of_before_and_elsewhere_are_known():
    for state, name in (("listening", "LISTEN"), ("established", "ESTABLISHED")):
        # Our own request is established too, at both ends, while it is answered; and may be counted.
        expected = tables(state)
        key = f'tcptrace_connections{{state="{name}"}}'
        until(f"{key} is {expected}, as ss counts",
              lambda: 0 <= metrics()[key] - expected <= (2 if name == "ESTABLISHED" else 0))
    if tables("established") < 2:
        raise Failed("ss sees no connection in the other namespace")


def connections_are_counted():
    count = 200
    before = metrics()
    connections(count)

    def counted():
        now = metrics()
        grown = {key: now[key] - before.get(key, 0) for key in now}
        ends = {who: grown.get(f'tcptrace_closes_total{{initiator="{who}",how="fin"}}', 0)
                for who in ("local", "remote")}
        # Those that ask for metrics come and go meanwhile.
        found = all(count <= number <= count + 100 for number in ends.values())
        return found and (ends, now['tcptrace_connections{state="TIME_WAIT"}'])

    ends, waiting = until(f"{count} closes of each end", counted, 90)
    if waiting < count:
        raise Failed(f"{waiting} in TIME_WAIT, not {count}")
    equal("lost", total(metrics(), "tcptrace_events_lost_total"), 0)
    fact("closes", **ends, time_wait=int(waiting))


def time_waits_end_when_they_expire():
    name = "tcptrace_time_wait_lifetime_seconds_count"
    # What a TIME_WAIT of 60 s takes, and some.
    until("200 TIME_WAITs have expired",
          lambda: metrics().get(f'{name}{{end_reason="expired"}}', 0) >= 200, 120)


def why_time_waits_end_is_known():
    # The client's port is bound again, so that its SYN finds the server's TIME_WAIT. This takes
    # /proc/kallsyms with addresses, which sandboxes like to hide.
    name = 'tcptrace_time_wait_lifetime_seconds_count{end_reason="reused-by-syn"}'
    before = metrics().get(name, 0)
    listener, port = listen()
    own = 0
    with listener:
        for _ in range(2):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", own))
            client.connect(("127.0.0.1", port))
            own = client.getsockname()[1]
            server, _ = listener.accept()
            server.close()
            equal("what is read at the end", client.recv(1), b"")
            client.close()
            # Until the last ACK is there, it is no TIME_WAIT.
            until("a TIME_WAIT", lambda: run("ss", "-Htan", "state", "time-wait", f"sport = {port}"))
    until("a TIME_WAIT that was reused by a SYN", lambda: metrics().get(name, 0) > before)
    unknown = [key for key, value in metrics().items() if 'end_reason="unknown"' in key and value]
    equal("TIME_WAITs that ended for no known reason", unknown, [])


def the_journal_has_no_complaint():
    said = journal(Before.cursor)
    for line in said.splitlines():
        fact("journal", line=line.replace('"', "'"))
    odd = [line for line in said.splitlines()
           if not any(re.fullmatch(pattern, line) for pattern in EXPECTED)]
    equal("lines of the journal that are not expected", odd, [])
    kernel = run("dmesg")
    # 1326: a system call that seccomp refused, where that is told.
    odd = [line for line in kernel.splitlines() if re.search(r"type=1326|comm=.?tcptrace", line)]
    equal("what the kernel says of it", odd, [])


def resources_are_bounded():
    memory, limit = int(shown("MemoryCurrent")), shown("MemoryMax")
    equal("MemoryMax", limit, str(1 << 30))
    tasks, most = int(shown("TasksCurrent")), int(shown("TasksMax"))
    if memory > 256 << 20 or tasks > 32 or most > 1 << 16:
        raise Failed(f"memory {memory}, tasks {tasks} of {most}")
    fact("resources", memory=f"{memory >> 20} MiB", tasks=f"{tasks} of {most}",
         files=shown("LimitNOFILE"))


def the_score_is_the_documented_one():
    said = run("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(r"exposure level for tcptrace\.service: ([0-9.]+)", said)
    if not found:
        raise Failed(said[-300:])
    fact("security", score=found[1])
    if float(found[1]) > SCORE:
        raise Failed(f"{found[1]} is worse than {SCORE}")


def it_restarts():
    before = processes()
    run("systemctl", "restart", UNIT)
    equal("is-active", run("systemctl", "is-active", UNIT), "active")
    ready()
    if set(before) & set(processes()) or not all(map(gone, before)):
        raise Failed(f"{before} are still there")


def a_kill_is_made_up_for():
    main, helper = processes()
    restarts = int(shown("NRestarts"))
    begin = time.monotonic()
    os.kill(main, signal.SIGKILL)
    until("the helper has gone with it", lambda: gone(helper), 5)
    until("systemd has started it again", lambda: int(shown("NRestarts")) == restarts + 1)
    until("it is active", lambda: shown("ActiveState") == "active" and shown("MainPID") != "0")
    ready()
    fact("killed", back_after=f"{time.monotonic() - begin:.1f} s")
    equal("active", run("systemctl", "is-active", UNIT), "active")


def a_killed_helper_is_told():
    _, helper = processes()
    os.kill(helper, signal.SIGKILL)
    until("tcptrace_helper_up is 0", lambda: metrics()["tcptrace_helper_up"] == 0)
    equal("is-active", run("systemctl", "is-active", UNIT), "active")
    equal("/healthz", get("/healthz")[0], 200)


def options_come_from_the_file():
    with open(OPTIONS, "w") as options:
        options.write("TCPTRACE_OPTIONS=--export-dir /var/lib/tcptrace --export-every 30s "
                      "--label unit\n")
    run("systemctl", "restart", UNIT)
    ready()
    connections(20)
    name = 'tcptrace_export_files_total{table="transitions"}'
    until("a file is written", lambda: metrics().get(name, 0) >= 1, 120)
    equal("failures", metrics()["tcptrace_export_failures_total"], 0)
    until("a label with this unit", lambda: any(
        "deploy-check.service" in key for key in metrics()), 60)


def it_stops_at_once_with_its_account():
    since = cursor()
    main, helper = processes()
    begin = time.monotonic()
    run("systemctl", "stop", UNIT)
    took = time.monotonic() - begin
    said = journal(since)
    for line in said.splitlines():
        fact("journal", line=line.replace('"', "'"))
    if took > 10:
        raise Failed(f"it took {took:.1f} s")
    equal("Result", shown("Result"), "success")
    # Not by ExecMainStatus: a unit that is not enabled is unloaded once it is inactive, and then shows 0.
    if "Deactivated successfully" not in said or "Main process exited" in said:
        raise Failed(f"it did not exit with 0: {said}")
    if not (gone(main) and gone(helper)):
        raise Failed("a process is left")
    if "events" not in said:
        raise Failed(f"no account in the journal: {said}")
    fact("stop", seconds=f"{took:.2f}")


def tables_are_in_the_state_directory():
    files = sorted(os.listdir(STATE))
    fact("exported", files=" ".join(files))
    for table in ("transitions", "connections"):
        found = [file for file in files if file.endswith(f".{table}.parquet")]
        if not found:
            raise Failed(f"no {table}: {files}")
        with open(f"{STATE}/{found[0]}", "rb") as file:
            bytes_ = file.read()
        equal("its first and last four bytes", (bytes_[:4], bytes_[-4:]), (b"PAR1", b"PAR1"))
    equal("what is left unfinished", [file for file in files if file.startswith(".")], [])
    equal("mode of the directory", oct(os.stat(STATE).st_mode & 0o777), "0o700")


def an_upgrade_takes_over():
    run("systemctl", "start", UNIT)
    ready()
    before = processes()
    run("dpkg", "--force-confold", "--install", DEB)
    until("it is active", lambda: shown("ActiveState") == "active" and shown("MainPID") != "0")
    ready()
    if set(before) & set(processes()):
        raise Failed("the old program still runs")
    with open(OPTIONS) as options:
        if "--export-dir" not in options.read():
            raise Failed(f"{OPTIONS} was replaced")


def a_removal_ends_it():
    main, helper = processes()
    run("dpkg", "--remove", PACKAGE)
    until("both processes are gone", lambda: gone(main) and gone(helper), 10)
    if not os.listdir(STATE):
        raise Failed("a removal is no purge: what was written must stay")
    # By the unit's file, without a word from anybody to systemd.
    equal("LoadState", shown("LoadState"), "not-found")


def a_purge_leaves_nothing():
    run("dpkg", "--purge", PACKAGE)
    # Drop-ins are the administrator's, as that of --drop-in.
    left = run("find", "/etc", "/usr", "/var", "/run", "-xdev", "-name", "*tcptrace*",
               "-not", "-path", "/run/other-tcptrace*", "-not", "-name", "tcptrace.service.d")
    equal("left", left.split(), [])
    equal("failed units", run("systemctl", "list-units", "--failed", "--plain", "--no-legend"), "")
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", UNIT)
    equal("what systemd knows of it", listed, "")


CHECKS = [
    systemd_is_pid_1,
    package_is_whole,
    debian_s_tcptrace_is_refused,
    unit_is_sound,
    it_starts,
    no_process_is_root,
    capabilities_and_seccomp_are_as_documented,
    it_answers,
    a_reload_ends_nothing,
    sockets_of_before_and_elsewhere_are_known,
    connections_are_counted,
    time_waits_end_when_they_expire,
    why_time_waits_end_is_known,
    the_journal_has_no_complaint,
    resources_are_bounded,
    the_score_is_the_documented_one,
    it_restarts,
    a_kill_is_made_up_for,
    a_killed_helper_is_told,
    options_come_from_the_file,
    it_stops_at_once_with_its_account,
    tables_are_in_the_state_directory,
    an_upgrade_takes_over,
    a_removal_ends_it,
    a_purge_leaves_nothing,
]


def main():
    passed = 0
    for number, check in enumerate(CHECKS, 1):
        begin = time.monotonic()
        # Numbered, so that a table in the order of names is in the order of events.
        print(f"test {number:02} {check.__name__} ... ", flush=True)
        try:
            check()
            word = "ok"
            passed += 1
        except Exception as error:  # Each is a check that did not come to its end.
            if isinstance(error, Failed):
                print(error)
            else:
                print(traceback.format_exc())
            said = subprocess.run(["journalctl", "--quiet", "--lines", "12", "--unit", UNIT],
                                  stdout=subprocess.PIPE, text=True)
            print(said.stdout)
            word = "FAILED"
        print(f"{word} <{time.monotonic() - begin:.3f}s>", flush=True)
    failed = len(CHECKS) - passed
    print(f"test result: {'FAILED' if failed else 'ok'}. {passed} passed; {failed} failed; 0 ignored")
    kernel = run("dmesg", code=None)
    if re.search(r"BUG: |Oops: |WARNING: |general protection fault", kernel):
        print(f"@@vm-dmesg begin\n{kernel}\n@@vm-dmesg end")
    with open("/proc/uptime") as uptime:
        now = uptime.read().split()[0]
    print(f"\n@@vm-exit {os.environ['VM_NONCE']} {101 if failed else 0} {now}", flush=True)
    # tcdrain(), which python3-minimal has no module for: what follows is a reset.
    fcntl.ioctl(sys.stdout.fileno(), TCSBRK, 1)


if __name__ == "__main__":
    main()
