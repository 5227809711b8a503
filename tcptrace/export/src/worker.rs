//! Tables of what goes on: the side of the disk, a thread.
//!
//! What cannot be written is said once and counted, and tried again when the next files begin. Must
//! not hold on to more than a row group of each table.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::AtomicUsize,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use bytes::BytesMut;
use jiff::Timestamp;

use super::{
    About, Format, Table, Waiting, connections,
    folder::{Folder, Unfinished, Written},
    sink::{Absent, Sink},
    stream::{Handed, Parcel, Stream, Then, Way},
    tally::Tally,
    transitions,
};
use tcptrace_model::Moved;
use tcptrace_record::Header;
use tcptrace_stats::conns::Connection;
use tcptrace_track::cgroups::Cgroups;

/// How long the end of the last files may take.
const CLOSING: Duration = Duration::from_secs(10);

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct ExportDir {
    /// The folder.
    pub path: PathBuf,
    /// Name of the host, for the files'.
    pub host: String,
    /// How long a file is written to.
    pub every: Duration,
    /// Addresses of kernel objects are written, which tell where the kernel has its memory.
    pub addresses: bool,
    /// How many closed files of each table stay; `None`: all.
    pub keep: Option<usize>,
}

/// The thread.
pub struct Exporter {
    ended: Receiver<()>,
    tally: Arc<Tally>,
}

impl Exporter {
    /// Starts it, and gives what is to be fed: nothing is written before the way was told that the
    /// hooks are on. `tell` is told when writing begins or ceases to work.
    ///
    /// # Errors
    /// There is no thread to be had, or no file can be made in the folder by one that has no more
    /// privileges than `prepare` leaves it.
    pub fn start(
        to: ExportDir,
        prepare: impl FnOnce() + Send + 'static,
        tell: impl Fn(&str) + Send + 'static,
    ) -> io::Result<(Self, Stream, Way)> {
        let (way, handed) = Way::new();
        let tally = Arc::new(Tally::default());
        let (end, ended) = mpsc::channel();
        let (tried, outcome) = mpsc::channel();
        let (waiting, counts, every) = (way.waiting(), Arc::clone(&tally), to.every);
        let addresses = to.addresses;
        thread::Builder::new().name("export".into()).spawn(move || {
            // Dropped at the end, which tells who waits for it.
            let _end = end;
            prepare();
            let folder = Folder::new(to.path, &to.host);
            let left = folder.try_out().and_then(|()| folder.remove_left());
            let usable = left.is_ok();
            // Fails only if nobody waits for it any more.
            let _ = tried.send(left);
            if usable {
                let about = About {
                    addresses,
                    header: Header::default(),
                    hz: 0,
                    cgroups: Cgroups::default(),
                    offset_ns: None,
                };
                Worker::new(folder, to.keep, about, counts, tell).run(&handed, &waiting);
            }
        })?;
        let left = outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread failed")))?;
        tally.found(left);
        let stream = Stream::new(way.clone(), Arc::clone(&tally), every);
        Ok((Self { ended, tally }, stream, way))
    }

    /// What is counted.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Waits until the last files are closed; both the stream and the way are gone.
    ///
    /// # Errors
    /// It takes too long: the disk does not take it.
    pub fn finish(self) -> io::Result<()> {
        match self.ended.recv_timeout(CLOSING) {
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
        }
    }
}

/// A file that is being written, and how.
struct Open {
    file: Unfinished,
    sink: Sink,
    rows: u64,
    absent: Absent,
}

/// The files of one table, one after the other.
struct Files<T> {
    table: Table,
    rows: Waiting<T>,
    open: Option<Open>,
    /// What may have to go for what comes; `None`: all stay, or what is there was not read yet.
    written: Option<Written>,
}

/// What all of a table's steps need.
struct Common<T> {
    folder: Folder,
    keep: Option<usize>,
    about: About,
    tally: Arc<Tally>,
    tell: T,
    /// It was said that it does not work.
    troubled: bool,
    out: BytesMut,
}

impl<T: Fn(&str)> Common<T> {
    fn fail(&mut self, why: &str) {
        self.tally.fail();
        if !std::mem::replace(&mut self.troubled, true) {
            (self.tell)(&format!(
                "nothing is written to {}: {why}; tried again with the next files, and said when \
                 it works",
                self.folder.path().display()
            ));
        }
    }
}

impl<R> Files<R> {
    fn new(table: Table, rows: Waiting<R>) -> Self {
        Self { table, rows, open: None, written: None }
    }

    fn begin<T: Fn(&str)>(&mut self, common: &mut Common<T>, at: Timestamp) {
        let file = match common.folder.create(self.table, at) {
            Ok(file) => file,
            Err(error) => return common.fail(&error.to_string()),
        };
        match Sink::new(Format::Parquet, &self.rows.columns, &common.about.header) {
            Ok(sink) => {
                self.open = Some(Open { file, sink, rows: 0, absent: Absent::default() });
            }
            Err(error) => common.fail(&error.to_string()),
        }
    }

    fn add<T: Fn(&str)>(&mut self, common: &mut Common<T>, rows: Vec<R>) {
        let Some(open) = &mut self.open else {
            return common.tally.lose(self.table, rows.len() as u64);
        };
        if rows.is_empty() {
            return;
        }
        open.rows += rows.len() as u64;
        self.rows.rows = rows;
        let written = self.rows.write(&common.about, &mut open.sink, &mut common.out);
        self.rows.rows.clear();
        let done = written
            .map_err(|error| error.to_string())
            .and_then(|_| open.file.write(&common.out).map_err(|error| error.to_string()));
        common.out.clear();
        if let Err(why) = done {
            self.give_up(common, &why);
        }
    }

    /// What was in it is in no file.
    fn give_up<T: Fn(&str)>(&mut self, common: &mut Common<T>, why: &str) {
        if let Some(open) = self.open.take() {
            common.tally.lose(open.file.table(), open.rows);
        }
        common.fail(why);
    }

    /// Whether that worked; `None`: there was nothing to do.
    fn close<T: Fn(&str)>(&mut self, common: &mut Common<T>) -> Option<bool> {
        let mut open = self.open.take()?;
        if open.rows == 0 && open.absent.lost == 0 {
            // Nothing to tell is no file.
            return None;
        }
        let table = open.file.table();
        let done = open.sink.finish(&open.absent, &[], &mut common.out).map_err(|e| e.to_string());
        let done = done.and_then(|()| open.file.write(&common.out).map_err(|e| e.to_string()));
        common.out.clear();
        let name = match done.and_then(|()| open.file.keep().map_err(|e| e.to_string())) {
            Ok(name) => name,
            Err(why) => {
                common.tally.lose(table, open.rows);
                common.fail(&why);
                return Some(false);
            }
        };
        common.tally.keep(table, open.rows);
        if let Some(keep) = common.keep
            && let Err(error) = self.prune(common, name, keep)
        {
            common.fail(&error.to_string());
        }
        Some(true)
    }

    /// Removes what is too much now that there is a file `name`.
    fn prune<T>(&mut self, common: &Common<T>, name: String, keep: usize) -> io::Result<()> {
        let written = match &mut self.written {
            Some(written) => written,
            // The first of this run: all others are from earlier ones, whatever they are called.
            None => self.written.insert(common.folder.earlier(self.table)?),
        };
        written.add(name);
        common.folder.prune(written, keep)
    }
}

struct Worker<T> {
    common: Common<T>,
    transitions: Files<Moved>,
    connections: Files<Connection>,
    part: u64,
}

impl<T: Fn(&str)> Worker<T> {
    fn new(folder: Folder, keep: Option<usize>, about: About, tally: Arc<Tally>, tell: T) -> Self {
        let out = BytesMut::new();
        let common = Common { folder, keep, about, tally, tell, troubled: false, out };
        let transitions = Files::new(Table::Transitions, Waiting::new(transitions::columns()));
        let connections = Files::new(Table::Connections, Waiting::new(connections::columns()));
        Self { common, transitions, connections, part: 0 }
    }

    fn run(mut self, handed: &Receiver<Handed>, waiting: &AtomicUsize) {
        for handed in handed {
            match handed {
                Handed::Begin(header) => {
                    self.common.about.header = *header;
                    self.begin(None);
                }
                Handed::Parcel(parcel) => {
                    let rows = parcel.rows();
                    self.take(*parcel);
                    Way::taken(waiting, rows);
                }
            }
        }
        // Whoever fed it has gone without a word: what there is is kept.
        self.close();
    }

    /// Begins files, from `mono_ns` on.
    fn begin(&mut self, mono_ns: Option<u64>) {
        self.part += 1;
        let about = &mut self.common.about;
        about.header.part = self.part;
        if let Some(mono_ns) = mono_ns {
            about.header.mono_ns = mono_ns;
        }
        if let Some(offset_ns) = about.offset_ns {
            about.header.realtime_offset_ns = offset_ns;
        }
        let header = &about.header;
        let at = i128::from(header.mono_ns) + i128::from(header.realtime_offset_ns);
        // A time that no calendar has is that of no clock that was ever set.
        let at = Timestamp::from_nanosecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
        self.transitions.begin(&mut self.common, at);
        self.connections.begin(&mut self.common, at);
    }

    fn take(&mut self, parcel: Parcel) {
        let Parcel { hz, offset_ns, mono_ns, names, transitions, connections, .. } = parcel;
        let Parcel { missing, lost, missed, then, .. } = parcel;
        let about = &mut self.common.about;
        (about.hz, about.offset_ns) = (hz, offset_ns);
        names.iter().for_each(|(id, path)| about.cgroups.name(*id, path));
        let opened = [&mut self.transitions.open, &mut self.connections.open];
        for (open, missing) in opened.into_iter().zip(missing) {
            if let Some(Open { absent, .. }) = open {
                absent.lost += lost + missing;
                if let Some(missed) = missed {
                    *absent.missed.get_or_insert_default() += missed;
                }
            }
        }
        self.transitions.add(&mut self.common, transitions);
        self.connections.add(&mut self.common, connections);
        match then {
            Then::More => {}
            Then::Rotate => {
                self.close();
                self.begin(Some(mono_ns));
            }
            Then::End => self.close(),
        }
    }

    fn close(&mut self) {
        let done =
            [self.transitions.close(&mut self.common), self.connections.close(&mut self.common)];
        let works = done.contains(&Some(true)) && !done.contains(&Some(false));
        if works && std::mem::replace(&mut self.common.troubled, false) {
            let path = self.common.folder.path().display();
            (self.common.tell)(&format!("files are written to {path} again"));
        }
    }
}
