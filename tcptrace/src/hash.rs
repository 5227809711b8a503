//! Hash tables whose keys strangers have a say in: addresses, ports, names of processes.
//!
//! Who can guess the hash can send connections that all fall into one bucket. So it must not be an
//! unkeyed one, nor one whose key is the same for all: ahash takes its keys from the system's random
//! numbers when the process starts. The standard library's SipHash does too, and is stronger than
//! is needed where nobody gets to see a hash; of the small keys here it takes more than all
//! else that is done for an event. Numbers that the kernel alone chooses have a cheaper one yet:
//! [`crate::track::AddressHasher`].

use std::collections::{HashMap, HashSet};

/// Values by keys.
pub(crate) type Map<K, V> = HashMap<K, V, ahash::RandomState>;

/// Keys.
pub(crate) type Set<K> = HashSet<K, ahash::RandomState>;

/// Values by keys that lie side by side.
pub(crate) type Rowed<K, V> = indexmap::IndexMap<K, V, ahash::RandomState>;
