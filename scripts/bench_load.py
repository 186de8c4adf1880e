"""The load part of scripts/bench.py: one agent with few and with many static pods, on the machine's Docker.

Every pod is one container in the host's network that serves a page with its revision and with a word that is new at
each start, and has one tcp readiness probe. Times are seen from outside: until that page comes."""
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tarfile
import tempfile
import time

IMAGE = "kubeboot.test/bench-load:1"
FIRST_PORT = 21000
SERVE = ("mkdir -p /www; echo $REVISION $(cat /proc/sys/kernel/random/uuid) > /www/page; trap 'exit 0' TERM; "
         "httpd -f -p 127.0.0.1:$PORT -h /www & wait $!")
MANIFEST = """apiVersion: v1
kind: Pod
metadata: {{name: load-{number}, namespace: load}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: {image}
    command: [sh, -c, "{serve}"]
    env: [{{name: PORT, value: "{port}"}}, {{name: REVISION, value: "{revision}"}}]
    readinessProbe: {{tcpSocket: {{host: 127.0.0.1, port: {port}}}}}
"""


def build_image():
    """An image of this machine's static busybox alone."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ["sh", "mkdir", "cat", "httpd"]:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    subprocess.run(["docker", "import", "-", IMAGE], input=layer.getvalue(), check=True, stdout=subprocess.DEVNULL)


class Docker(http.client.HTTPConnection):
    """Docker's API on its socket, one connection a call: what its own work takes."""

    def __init__(self):
        super().__init__("localhost")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")

    @classmethod
    def call(cls, method, path, body=None):
        connection = cls()
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            return json.loads(answer) if answer.strip() else None
        finally:
            connection.close()


def docker_floor(rounds):
    """What Docker itself takes, in seconds: to make and start a container, and to tell that its process was killed."""
    begun, ended = [], []
    config = {"Image": IMAGE, "Cmd": ["sh", "-c", "while :; do cat; done"], "OpenStdin": True,
              "HostConfig": {"NetworkMode": "host"}}
    for _ in range(max(5, rounds)):
        start = time.monotonic()
        container = Docker.call("POST", "/containers/create", config)["Id"]
        Docker.call("POST", f"/containers/{container}/start")
        begun.append(time.monotonic() - start)
        pid = Docker.call("GET", f"/containers/{container}/json")["State"]["Pid"]
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        Docker.call("POST", f"/containers/{container}/wait")
        ended.append(time.monotonic() - start)
        Docker.call("DELETE", f"/containers/{container}?force=1")
    return statistics.median(begun), statistics.median(ended)


def until(test, limit=120):
    start = time.monotonic()
    while not test():
        if time.monotonic() - start > limit:
            raise SystemExit(f"load: not reached in {limit} s")
        time.sleep(0.005)
    return time.monotonic() - start


class Load:
    """An agent with a directory of its own. Used as a context, it leaves nothing behind."""

    def __init__(self, binary):
        self.binary, self.agent = binary, None
        self.dir = tempfile.mkdtemp(prefix="bench-load-")
        self.manifests, self.socket = f"{self.dir}/manifests", f"{self.dir}/agent.sock"
        os.mkdir(self.manifests)
        with open(f"{self.dir}/config.yaml", "w") as f:
            f.write("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
                    f"staticPodPath: {self.manifests}\npodLogsDir: {self.dir}/logs\nhealthzPort: 0\n")
        self.revisions = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for number in self.revisions:
            os.unlink(f"{self.manifests}/load-{number}.yaml")
        if self.agent and self.agent.poll() is None:
            until(lambda: not self.report()["pods"])
            self.agent.terminate()
            self.agent.wait()
        shutil.rmtree(self.dir)

    def write(self, number):
        """Writes a pod's next revision aside, and renames it into place."""
        revision = self.revisions.get(number, 0) + 1
        text = MANIFEST.format(number=number, image=IMAGE, serve=SERVE, port=FIRST_PORT + number, revision=revision)
        with open(f"{self.dir}/aside", "w") as f:
            f.write(text)
        os.rename(f"{self.dir}/aside", f"{self.manifests}/load-{number}.yaml")
        self.revisions[number] = revision

    def start(self):
        with open(f"{self.dir}/agent.log", "a") as log:
            argv = [self.binary, "agent", "--config", f"{self.dir}/config.yaml", "--root-dir", f"{self.dir}/root",
                    "--control-socket", self.socket, "--hostname-override", "bench"]
            self.agent = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def report(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.socket)
            client.sendall(b'{"version":1,"request":"report"}\n')
            return json.loads(client.makefile().readline())

    def page(self, number):
        """Revision and word of the process that serves now, None while nobody does."""
        connection = http.client.HTTPConnection("127.0.0.1", FIRST_PORT + number, timeout=1)
        try:
            connection.request("GET", "/page")
            return connection.getresponse().read().decode().split()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def converge(self, numbers):
        """Seconds until all of these, written at once, answer and are reported healthy."""
        start = time.monotonic()
        for number in numbers:
            self.write(number)

        def well():
            try:
                pods = self.report()["pods"]
            except OSError:
                return False
            return len(pods) == len(self.revisions) and all(pod["healthy"] for pod in pods)

        until(well)
        took = time.monotonic() - start
        missing = [number for number in numbers if not self.page(number)]
        if missing:
            raise SystemExit(f"load: reported healthy, and does not answer: {missing}")
        return took

    def edit(self, number):
        start = time.monotonic()
        self.write(number)
        wanted = str(self.revisions[number])
        until(lambda: (self.page(number) or [None])[0] == wanted)
        return time.monotonic() - start

    def kill(self, number):
        """The first kill of a container, which nothing holds back."""
        before = self.page(number)
        label = f"io.kubernetes.pod.name=load-{number}-bench"
        listed = subprocess.run(["docker", "ps", "-q", "--filter", f"label={label}"], capture_output=True, text=True)
        argv = ["docker", "inspect", "--format", "{{.State.Pid}}", *listed.stdout.split()]
        pid = int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.page(number) not in (None, before))
        return time.monotonic() - start

    def idle(self, seconds):
        """Share of a core in percent over so many seconds, and resident memory in MB."""
        def ticks():
            fields = open(f"/proc/{self.agent.pid}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before, start = ticks(), time.monotonic()
        time.sleep(seconds)
        used = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start) * 100
        status = open(f"/proc/{self.agent.pid}/status").read()
        return used, int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


TARGETS = {4: ("<= 0.3 %", "<= 20 MB"), 100: ("<= 0.5 %", "<= 40 MB")}


def measure(binary, rounds, window, result):
    """Everything at 4 and at 100 pods; `result` is told each row."""
    build_image()
    edits, kills, floors = {}, {}, {}
    for count, (cpu, memory) in TARGETS.items():
        with Load(binary) as load:
            load.start()
            took = load.converge(range(count))
            result(f"{count} static pods: until all are healthy", f"{took:.2f} s")
            # Spread over the pods; each is killed once, so that no back-off is measured.
            chosen = [round(n * (count - 1) / max(1, min(rounds, count) - 1)) for n in range(min(rounds, count))]
            kills[count] = statistics.median(load.kill(number) for number in chosen)
            edits[count] = statistics.median(load.edit(number) for number in chosen)
            floors[count] = sum(docker_floor(rounds))
            time.sleep(15)
            used, resident = load.idle(window)
            result(f"{count} static pods: agent idle, share of a core", f"{used:.2f} %", cpu)
            result(f"{count} static pods: resident memory", f"{resident:.1f} MB", memory)
    few, many = TARGETS
    rows = [("Docker alone: killed, told, made, started", floors), ("edited -> answers", edits), ("killed -> answers", kills)]
    for what, of in rows:
        over = "" if of is floors else ", {:.2f} x Docker alone"
        result(f"one of {few}: {what}", f"{of[few]:.3f} s", over.format(of[few] / floors[few]).lstrip(", "))
        ratio = f"{of[many] / of[few]:.2f} x that of one of {few}"
        result(f"one of {many}: {what}", f"{of[many]:.3f} s", ratio + over.format(of[many] / floors[many]))
