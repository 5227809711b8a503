#!/usr/bin/env python3
"""Runs the image as the comment in deploy/docker/Dockerfile says, and as deploy/kubernetes/daemonset.yaml
says, with podman, and looks at what it does. As root, from the workspace's root:

    podman build -f deploy/docker/Dockerfile -t tcptrace:0.2.0 .
    python3 xtask/deploy-container.py localhost/tcptrace:0.2.0

Flags are read from these two files, so that what is tried is what is handed on. It takes podman and
python3-yaml, builds nothing, and is no cluster: whether an API server takes the DaemonSet is for
kubernetes-validate (PyPI) to say. PODMAN="podman --runtime runc" names another way to run.
"""

import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import time

import yaml

PODMAN = shlex.split(os.environ.get("PODMAN", "podman"))
# The capabilities that both files name, as bits (include/uapi/linux/capability.h).
BOUNDING = 1 << 2 | 1 << 19 | 1 << 21 | 1 << 34 | 1 << 38 | 1 << 39
KEPT = {"tcptrace": 0, "tcptrace-tables": 1 << 2 | 1 << 19 | 1 << 21}


def check(what, right, found=""):
    print(f"{'ok    ' if right else 'FAILED'} {what} {found}".rstrip())
    check.failed += not right


check.failed = 0


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value


class Container:
    """A container that runs; `podman stop` ends it."""

    def __init__(self, name, arguments):
        self.name = name
        print("+", shlex.join(arguments))
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True)
        inspect = [*PODMAN, "inspect", "--format", "{{.State.Pid}}", name]
        pid = until(lambda: subprocess.run(inspect, capture_output=True, text=True).stdout.strip())
        if not pid or pid == "0":
            sys.exit(f"it did not start: {self.process.communicate(timeout=10)[0]}")
        self.pid = int(pid)

    def get(self, port, path, token=None):
        """Status and body of an answer, asked for in its own network namespace."""
        lines = ["-H", f"Authorization: Bearer {token}"] if token else []
        asked = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "curl", "-s", "-m", "5", *lines,
             "-w", "\n%{http_code}", f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True)
        body, _, status = asked.stdout.rpartition("\n")
        return int(status or 0), body

    def metrics(self, port, token=None):
        _, text = self.get(port, "/metrics", token)
        lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def privileges(self):
        """What both processes have left."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
            pids = [self.pid, *map(int, children.read().split())]
        check("there are two processes", len(pids) == 2, pids)
        for pid in pids:
            with open(f"/proc/{pid}/status") as file:
                of = dict(re.findall(r"(\w+):\s*(.*)", file.read()))
            found = {key: int(of[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")}
            held = KEPT.get(of["Name"])
            check(f"{of['Name']}: capabilities as documented",
                  found == {"CapEff": held, "CapPrm": held, "CapBnd": BOUNDING}, found)
            check(f"{of['Name']}: seccomp and no new privileges",
                  (of["Seccomp"], of["NoNewPrivs"]) == ("2", "1"))

    def stop(self):
        begin = time.monotonic()
        subprocess.run([*PODMAN, "stop", "-t", "10", self.name], capture_output=True)
        said = self.process.communicate(timeout=30)[0]
        took = time.monotonic() - begin
        check("it ends in time, with its account", took < 8 and "events seen" in said, f"{took:.1f} s")
        print("".join(f"       | {line}\n" for line in said.splitlines()), end="")


def connections(count):
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        for _ in range(count):
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            client.close()
            server.recv(1)
            server.close()


def of_dockerfile(image):
    with open("deploy/docker/Dockerfile") as file:
        comment = "".join(line[1:] for line in file if line.startswith("#"))
    command = re.search(r"docker run((?:.*\\\n)*.*)\n", comment)[1].replace("\\\n", " ")
    *flags, _ = shlex.split(command)
    container = Container("tcptrace-docker", [*PODMAN, "run", "--name", "tcptrace-docker", *flags, image])
    check("/readyz", until(lambda: container.get(9718, "/readyz")[0] == 200))
    key = 'tcptrace_closes_total{initiator="local",how="fin"}'
    before = container.metrics(9718)
    connections(300)
    grown = until(lambda: container.metrics(9718).get(key, 0) >= before.get(key, 0) + 300)
    check("300 connections are counted", grown)
    hooks = [key for key in before if key.startswith("tcptrace_hook_attached")]
    check("all hooks are on", len(hooks) == 4 and all(before[key] for key in hooks), hooks)
    container.privileges()
    container.stop()


def of_daemonset(image):
    with open("deploy/kubernetes/daemonset.yaml") as file:
        template = yaml.safe_load(file)["spec"]["template"]
    pod = template["spec"]
    (wanted,) = pod["containers"]
    context = wanted["securityContext"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    ports = {port["name"]: port["containerPort"] for port in wanted["ports"]}
    token = secrets.token_hex(32)
    with tempfile.TemporaryDirectory() as secret:
        with open(f"{secret}/token", "w") as file:
            os.fchmod(file.fileno(), volumes["token"]["secret"]["defaultMode"])
            file.write(token)
        flags = ["--rm", "--network=none", f"--user={context['runAsUser']}"]
        flags += ["--pid=host"] * bool(pod.get("hostPID"))
        flags += ["--read-only", "--read-only-tmpfs=false"] * context["readOnlyRootFilesystem"]
        flags += ["--security-opt=no-new-privileges"] * (not context["allowPrivilegeEscalation"])
        flags += [f"--cap-drop={name}" for name in context["capabilities"]["drop"]]
        flags += [f"--cap-add={name}" for name in context["capabilities"]["add"]]
        flags += [f"--memory={wanted['resources']['limits']['memory'].removesuffix('i').lower()}"]
        for mount in wanted["volumeMounts"]:
            source = volumes[mount["name"]].get("hostPath", {"path": secret})["path"]
            flags += ["-v", f"{source}:{mount['mountPath']}" + ":ro" * mount.get("readOnly", False)]
        name = "tcptrace-daemonset"
        container = Container(name, [*PODMAN, "run", "--name", name, *flags, image, *wanted["args"]])
        for probe in ("readinessProbe", "livenessProbe"):
            get = wanted[probe]["httpGet"]
            port, path = ports.get(get["port"], get["port"]), get["path"]
            check(f"{probe}: {path}", until(lambda: container.get(port, path)[0] == 200))
        annotations = template["metadata"]["annotations"]
        port, path = int(annotations["prometheus.io/port"]), annotations.get("prometheus.io/path", "/metrics")
        check("annotations name the port", port == ports["metrics"], port)
        check("without the token 401", container.get(port, path)[0] == 401)
        check("with it 200", container.get(port, path, token)[0] == 200)
        # It is in a namespace of its own: these are found by processes, and by entering theirs.
        with socket.create_server(("127.0.0.1", 0)):
            here = len(subprocess.check_output(["ss", "-Htln"], text=True).splitlines())

            def listening():
                samples = container.metrics(port, token).items()
                return sum(value for key, value in samples
                           if key.startswith("tcptrace_connections{") and '"LISTEN"' in key)
            check("listeners of the host are known", until(lambda: listening() >= here + 1), listening())
        container.privileges()
        container.stop()


def main():
    if len(sys.argv) != 2 or os.geteuid():
        sys.exit("as root: deploy-container.py IMAGE")
    of_dockerfile(sys.argv[1])
    of_daemonset(sys.argv[1])
    sys.exit(f"{check.failed} checks failed" if check.failed else 0)


if __name__ == "__main__":
    main()
