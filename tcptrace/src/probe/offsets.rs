//! Which fields the kernel side reads, by name.
//!
//! Must not guess: a field that BTF does not have is absent, and the kernel side then leaves out
//! what depends on it. Only what a transition cannot do without is an error.

use tcptrace_common::globals::{ABSENT, SockOffsets};

use super::btf::{Btf, BtfError};

/// Reads the offsets of all fields that the BTF-typed programs use.
pub fn sock_offsets(btf: &Btf<'_>) -> Result<SockOffsets, BtfError> {
    let sock = |path| btf.offset_of("sock", path);
    Ok(SockOffsets {
        skc_daddr: sock("__sk_common.skc_daddr")?,
        skc_rcv_saddr: sock("__sk_common.skc_rcv_saddr")?,
        skc_dport: sock("__sk_common.skc_dport")?,
        skc_num: sock("__sk_common.skc_num")?,
        skc_family: sock("__sk_common.skc_family")?,
        // Without CONFIG_NET_NS there is one namespace and no pointer to it.
        skc_net: sock("__sk_common.skc_net.net").unwrap_or(ABSENT),
        net_inum: btf.offset_of("net", "ns.inum")?,
        // Without CONFIG_IPV6 there is no AF_INET6 socket to read them from.
        skc_v6_daddr: sock("__sk_common.skc_v6_daddr").unwrap_or(ABSENT),
        skc_v6_rcv_saddr: sock("__sk_common.skc_v6_rcv_saddr").unwrap_or(ABSENT),
        skc_flags: sock("__sk_common.skc_flags")?,
        sk_err: sock("sk_err")?,
        sk_shutdown: sock("sk_shutdown")?,
        sk_lingertime: sock("sk_lingertime")?,
        sk_protocol: sock("sk_protocol")?,
        // Before 5.15 (commit 8520e224f547) a tagged word; without CONFIG_SOCK_CGROUP_DATA none.
        sk_cgroup: sock("sk_cgrp_data.cgroup").unwrap_or(ABSENT),
        cgroup_kn: btf.offset_of("cgroup", "kn").unwrap_or(ABSENT),
        kn_id: btf.offset_of("kernfs_node", "id").unwrap_or(ABSENT),
        inet_sport: btf.offset_of("tcp_sock", "inet_conn.icsk_inet.inet_sport")?,
        sock_dead_bit: btf.enum_value("sock_flags", "SOCK_DEAD")?,
        sock_linger_bit: btf.enum_value("sock_flags", "SOCK_LINGER")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Constant from 5.10 to 7.3 on x86-64.
    #[test]
    fn finds_this_kernels_fields() {
        let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            println!("skipped: this kernel has no BTF");
            return;
        };
        let offsets = sock_offsets(&Btf::parse(&data).unwrap()).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
            assert_eq!((offsets.skc_dport, offsets.skc_num, offsets.skc_family), (12, 14, 16));
            assert_eq!((offsets.skc_v6_daddr, offsets.skc_v6_rcv_saddr), (56, 72));
            assert_eq!(offsets.skc_flags, 96);
        }
        assert_eq!((offsets.sock_dead_bit, offsets.sock_linger_bit), (0, 4));
    }
}
