//! Which service, container or pod a socket belongs to, by the path of its cgroup.
//!
//! Pure: a path goes in, names come out. The conventions are those of systemd (`cg_path_get_unit()`),
//! of the container runtimes and of the kubelet with both of its cgroup drivers. What no convention
//! fits is left unnamed rather than guessed: the path itself is always there.
//!
//! Names come from whoever may make a cgroup, so they are untrusted text: whoever prints one
//! escapes it.

/// Hexadecimal digits of a container id that tell containers apart for people (as `docker ps`).
const SHORT_ID: usize = 12;
/// Of a pod's uid.
const SHORT_POD: usize = 8;
/// Hexadecimal digits of a whole container id.
const LONG_ID: usize = 64;

/// A cgroup (v2), by its path from the root of the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: Box<str>,
    unit: Option<Box<str>>,
    user: Option<u32>,
    container: Option<Container>,
    pod: Option<Box<str>>,
    name: Box<str>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What made it.
    pub runtime: Runtime,
    /// Its id, 64 hexadecimal digits.
    pub id: Box<str>,
}

/// What made a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// Docker
    Docker,
    /// Podman (libpod)
    Podman,
    /// containerd, for Kubernetes or nerdctl
    Containerd,
    /// CRI-O
    Crio,
    /// The path does not say.
    Unknown,
}

impl Runtime {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Unknown => "container",
        }
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "docker" => Self::Docker,
            "libpod" => Self::Podman,
            "cri-containerd" | "nerdctl" => Self::Containerd,
            "crio" => Self::Crio,
            _ => return None,
        })
    }
}

impl Cgroup {
    /// Reads a path such as `/system.slice/nginx.service`; any text may be given.
    pub fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (unit, user) = unit(&parts);
        let container = (0..parts.len()).rev().find_map(|at| container(&parts, at));
        let pod = parts.iter().rev().find_map(|part| pod(part));
        let mut cgroup = Self {
            path: path.into(),
            unit: unit.map(Into::into),
            user,
            container,
            pod,
            name: Box::default(),
        };
        cgroup.name = cgroup.short(&parts).into();
        cgroup
    }

    /// The whole path; `/` is the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The systemd unit, as `systemctl` takes it: with its `\x2d` escapes. A user's own unit where
    /// the user's service manager has made one.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// The user whose service manager the unit belongs to.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// The container, the innermost where one runs in another.
    pub fn container(&self) -> Option<&Container> {
        self.container.as_ref()
    }

    /// The uid of the Kubernetes pod, with dashes.
    pub fn pod(&self) -> Option<&str> {
        self.pod.as_deref()
    }

    /// A short name to show and to group by: of the container, else of the unit (unescaped), else
    /// the path.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn short(&self, parts: &[&str]) -> String {
        match (&self.pod, &self.container) {
            (Some(pod), Some(container)) => {
                format!("pod-{}/{}", cut(pod, SHORT_POD), cut(&container.id, SHORT_ID))
            }
            (Some(pod), None) => format!("pod-{}", cut(pod, SHORT_POD)),
            (None, Some(Container { runtime, id })) => {
                format!("{}-{}", runtime.name(), cut(id, SHORT_ID))
            }
            (None, None) => match (self.unit(), self.user, parts) {
                (Some(unit), Some(user), _) => format!("{} (uid {user})", unescape(unit)),
                (Some(unit), None, _) => unescape(unit),
                (None, _, [slice]) if slice.ends_with(".slice") => unescape(slice),
                (None, ..) => self.path.to_string(),
            },
        }
    }
}

/// The unit, and the user if it is one of a user's service manager: what comes after the slices,
/// and again after `user@UID.service`.
fn unit<'a>(parts: &[&'a str]) -> (Option<&'a str>, Option<u32>) {
    let mut rest = parts.iter().copied().map(unmangle).skip_while(|part| part.ends_with(".slice"));
    let Some(first) = rest.next().filter(|part| is_unit(part)) else { return (None, None) };
    let user = first.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    let Some(user) = user.and_then(|user| user.parse().ok()) else { return (Some(first), None) };
    match rest.find(|part| !part.ends_with(".slice")).filter(|part| is_unit(part)) {
        Some(own) => (Some(own), Some(user)),
        None => (Some(first), None),
    }
}

/// Kinds of units that have processes.
fn is_unit(part: &str) -> bool {
    const KINDS: [&str; 5] = ["service", "scope", "socket", "mount", "swap"];
    part.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && KINDS.contains(&kind))
}

/// Undoes `cg_escape()`: a unit named like a file of the kernel's gets a `_` in front.
fn unmangle(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

/// The container whose own cgroup `parts[at]` is.
fn container(parts: &[&str], at: usize) -> Option<Container> {
    let part = *parts.get(at)?;
    // runc's systemd driver told to name none: `SLICE:PREFIX:ID` as one directory.
    if let Some((front, id)) = part.rsplit_once(':') {
        let runtime = Runtime::of(front.rsplit(':').next()?)?;
        return is_id(id).then(|| Container { runtime, id: id.into() });
    }
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some((word, id)) = name.rsplit_once('-') {
        // `libpod-conmon-ID` and `crio-conmon-ID` are the monitors beside the containers.
        let word = word.strip_suffix("-payload").unwrap_or(word);
        return is_id(id)
            .then(|| Runtime::of(word))
            .flatten()
            .map(|runtime| Container { runtime, id: id.into() });
    }
    if !is_id(name) || name.len() != part.len() {
        return None;
    }
    let runtime = match parts.get(at.checked_sub(1)?) {
        Some(&"docker") => Runtime::Docker,
        Some(&"libpod_parent") => Runtime::Podman,
        Some(&("k8s.io" | "default")) => Runtime::Containerd,
        _ => Runtime::Unknown,
    };
    Some(Container { runtime, id: name.into() })
}

fn is_id(text: &str) -> bool {
    text.len() == LONG_ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The uid in `podUID` (driver cgroupfs) or `kubepods-burstable-podUID.slice` (driver systemd, which
/// writes `_` for `-`). A static pod's has no dashes.
fn pod(part: &str) -> Option<Box<str>> {
    // `SLICE:PREFIX:ID`, as above.
    let part = part.split(':').next()?;
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => {
            let (front, uid) = slice.rsplit_once("-pod")?;
            front.contains("kubepods").then_some(uid)?
        }
        None => part.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let uuid = uid.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let digits = uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    (digits && (uuid || uid.len() == 32)).then(|| uid.into())
}

fn cut(text: &str, len: usize) -> &str {
    text.get(..len).unwrap_or(text)
}

/// Undoes systemd's `\xNN` (`unit_name_escape()`), for people. What is no UTF-8 then stays as it is.
fn unescape(unit: &str) -> String {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut rest = unit.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                digit(*high).zip(digit(*low)).map(|(high, low)| ((high << 4 | low) as u8, tail))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2c9a1be0d4f58a7c6b5a4938271605f4e3d2c1b0a9988776655443322110ff";
    const UID: &str = "2b1c5a7e-9d3f-4e21-8a6b-0c1d2e3f4a5b";
    /// Of a static pod: a hash of its manifest.
    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015";

    /// `PATH` with `ID`, `UID`, `U_D` (as systemd needs it) and `HASH` in it to
    /// `UNIT USER RUNTIME POD NAME`, `-` for none, and `ID` where the container's id is right.
    fn read(path: &str) -> String {
        let path = path
            .replace("ID", ID)
            .replace("UU", UID)
            .replace("U_U", &UID.replace('-', "_"))
            .replace("HASH", HASH);
        let cgroup = Cgroup::parse(&path);
        assert_eq!(cgroup.path(), path);
        let container = cgroup.container().map_or("-", |container| {
            assert_eq!(&*container.id, ID);
            container.runtime.name()
        });
        let pod = cgroup.pod().map_or("-", |pod| match pod {
            UID => "UU",
            HASH => "HASH",
            _ => panic!("{pod}"),
        });
        let unit = cgroup.unit().unwrap_or("-").replace(ID, "ID");
        let user = cgroup.user().map_or("-".to_owned(), |user| user.to_string());
        format!("{unit} {user} {container} {pod} [{}]", cgroup.name())
    }

    fn table(rows: &[(&str, &str)]) {
        for (path, expected) in rows {
            assert_eq!(read(path), *expected, "{path}");
        }
    }

    #[test]
    fn systemd_units() {
        table(&[
            ("/system.slice/nginx.service", "nginx.service - - - [nginx.service]"),
            ("/init.scope", "init.scope - - - [init.scope]"),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                "postgresql@15-main.service - - - [postgresql@15-main.service]",
            ),
            // Delegated: what a service makes below itself is its own.
            (
                "/system.slice/systemd-udevd.service/udev",
                "systemd-udevd.service - - - [systemd-udevd.service]",
            ),
            ("/system.slice/app-a\\x2db.service", "app-a\\x2db.service - - - [app-a-b.service]"),
            ("/system.slice/_cpu.service", "cpu.service - - - [cpu.service]"),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope - - - [session-3.scope]",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/\
                 app-gnome-org.gnome.Terminal-4711.scope",
                "app-gnome-org.gnome.Terminal-4711.scope 1000 - - \
                 [app-gnome-org.gnome.Terminal-4711.scope (uid 1000)]",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                "init.scope 1000 - - [init.scope (uid 1000)]",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service",
                "user@1000.service - - - [user@1000.service]",
            ),
            (
                "/machine.slice/systemd-nspawn@web.service/payload",
                "systemd-nspawn@web.service - - - [systemd-nspawn@web.service]",
            ),
            ("/system.slice/dbus.socket", "dbus.socket - - - [dbus.socket]"),
            ("/system.slice", "- - - - [system.slice]"),
        ]);
    }

    #[test]
    fn containers() {
        table(&[
            ("/system.slice/docker-ID.scope", "docker-ID.scope - docker - [docker-3f2c9a1be0d4]"),
            ("/docker/ID", "- - docker - [docker-3f2c9a1be0d4]"),
            ("/docker/ID/init.scope", "- - docker - [docker-3f2c9a1be0d4]"),
            (
                "/machine.slice/libpod-ID.scope/container",
                "libpod-ID.scope - podman - [podman-3f2c9a1be0d4]",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
                "libpod-ID.scope 1000 podman - [podman-3f2c9a1be0d4]",
            ),
            ("/libpod_parent/libpod-ID", "- - podman - [podman-3f2c9a1be0d4]"),
            (
                "/system.slice/nerdctl-ID.scope",
                "nerdctl-ID.scope - containerd - [containerd-3f2c9a1be0d4]",
            ),
            ("/default/ID", "- - containerd - [containerd-3f2c9a1be0d4]"),
            ("/ecs/0123456789abcdef/ID", "- - container - [container-3f2c9a1be0d4]"),
        ]);
        let monitor = read("/machine.slice/libpod-conmon-ID.scope");
        assert!(monitor.starts_with("libpod-conmon-ID.scope - - -"), "{monitor}");
    }

    #[test]
    fn pods() {
        table(&[
            // Driver systemd.
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_U.slice/\
                 cri-containerd-ID.scope",
                "cri-containerd-ID.scope - containerd UU [pod-2b1c5a7e/3f2c9a1be0d4]",
            ),
            (
                "/kubepods.slice/kubepods-podU_U.slice/crio-ID.scope/container",
                "crio-ID.scope - cri-o UU [pod-2b1c5a7e/3f2c9a1be0d4]",
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_U.slice/\
                 docker-ID.scope",
                "docker-ID.scope - docker UU [pod-2b1c5a7e/3f2c9a1be0d4]",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podHASH.slice",
                "- - - HASH [pod-9f86d081]",
            ),
            // Driver cgroupfs.
            ("/kubepods/burstable/podUU/ID", "- - container UU [pod-2b1c5a7e/3f2c9a1be0d4]"),
            ("/kubepods/podHASH/ID", "- - container HASH [pod-9f86d081/3f2c9a1be0d4]"),
            ("/kubepods/besteffort/podUU/crio-ID", "- - cri-o UU [pod-2b1c5a7e/3f2c9a1be0d4]"),
            // containerd with a systemd slice and no systemd driver.
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_U.slice:cri-containerd:ID",
                "containerd.service - containerd UU [pod-2b1c5a7e/3f2c9a1be0d4]",
            ),
            // kind: Kubernetes in a Docker container.
            (
                "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podU_U.slice/\
                 cri-containerd-ID.scope",
                "docker-ID.scope - containerd UU [pod-2b1c5a7e/3f2c9a1be0d4]",
            ),
        ]);
    }

    #[test]
    fn what_only_looks_like_one_is_left_alone() {
        table(&[
            ("/", "- - - - [/]"),
            ("", "- - - - []"),
            ("/lxc/web", "- - - - [/lxc/web]"),
            ("/docker/3f2c9a1be0d4", "- - - - [/docker/3f2c9a1be0d4]"),
            ("/podman", "- - - - [/podman]"),
            ("/kubepods/pod", "- - - - [/kubepods/pod]"),
            ("/.service", "- - - - [/.service]"),
            (
                "/system.slice/docker-ID.service.d",
                &format!("- - - - [/system.slice/docker-{ID}.service.d]"),
            ),
            ("/system.slice/docker.service", "docker.service - - - [docker.service]"),
            ("/a\\x1b[31m\\x2", "- - - - [/a\\x1b[31m\\x2]"),
            ("/system.slice/x\\xff.service", "x\\xff.service - - - [x\\xff.service]"),
        ]);
        let odd =
            ["\\x", "::", "-:", ":é:", "pod\u{1f600}", "-podé.slice", "_", "é".repeat(64).as_str()]
                .map(Cgroup::parse);
        assert!(odd.iter().all(|cgroup| cgroup.container().is_none() && cgroup.pod().is_none()));
    }
}
