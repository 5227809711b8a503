//! Which fields the kernel side reads, by name.
//!
//! Must not guess: a field that BTF does not have is absent, and the kernel side then leaves out
//! what depends on it. Only what a transition cannot do without is an error.

use tcptrace_common::globals::{
    ABSENT, FileOffsets, PidOffsets, SockOffsets, TaskOffsets, TotalsOffsets,
};

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
        // Before 5.12 (commit 3d368ab87cf6) there is one only where it has been asked for.
        net_cookie: btf.offset_of("net", "net_cookie").unwrap_or(ABSENT),
        // Without CONFIG_IPV6 there is no AF_INET6 socket to read them from.
        skc_v6_daddr: sock("__sk_common.skc_v6_daddr").unwrap_or(ABSENT),
        skc_v6_rcv_saddr: sock("__sk_common.skc_v6_rcv_saddr").unwrap_or(ABSENT),
        skc_flags: sock("__sk_common.skc_flags")?,
        skc_state: sock("__sk_common.skc_state")?,
        sk_err: sock("sk_err")?,
        sk_shutdown: sock("sk_shutdown")?,
        sk_lingertime: sock("sk_lingertime")?,
        sk_socket: sock("sk_socket")?,
        sk_protocol: sock("sk_protocol")?,
        // Before 5.15 (commit 8520e224f547) a tagged word; without CONFIG_SOCK_CGROUP_DATA none.
        sk_cgroup: sock("sk_cgrp_data.cgroup").unwrap_or(ABSENT),
        cgroup_kn: btf.offset_of("cgroup", "kn").unwrap_or(ABSENT),
        kn_id: btf.offset_of("kernfs_node", "id").unwrap_or(ABSENT),
        inet_sport: btf.offset_of("tcp_sock", "inet_conn.icsk_inet.inet_sport")?,
        local_port_range: btf
            .offset_of("tcp_sock", "inet_conn.icsk_inet.local_port_range")
            .unwrap_or(ABSENT),
        sock_dead_bit: btf.enum_value("sock_flags", "SOCK_DEAD")?,
        sock_linger_bit: btf.enum_value("sock_flags", "SOCK_LINGER")?,
        sock_done_bit: btf.enum_value("sock_flags", "SOCK_DONE")?,
        // Without CONFIG_MPTCP (or before 5.6) no socket is a subflow.
        is_mptcp: btf.offset_of("tcp_sock", "is_mptcp").unwrap_or(ABSENT),
    })
}

/// Reads the offsets of what a connection did: all, or the first that is not there.
pub(super) fn totals_offsets(btf: &Btf<'_>) -> Result<TotalsOffsets, BtfError> {
    let tcp = |path| btf.offset_of("tcp_sock", path);
    let (repair, bit) = btf.flag_of("tcp_sock", "repair")?;
    Ok(TotalsOffsets {
        bytes_acked: tcp("bytes_acked")?,
        bytes_received: tcp("bytes_received")?,
        srtt_us: tcp("srtt_us")?,
        total_retrans: tcp("total_retrans")?,
        rcv_nxt: tcp("rcv_nxt")?,
        copied_seq: tcp("copied_seq")?,
        write_seq: tcp("write_seq")?,
        snd_una: tcp("snd_una")?,
        user_timeout: tcp("inet_conn.icsk_user_timeout")?,
        linger2: tcp("linger2")?,
        snd_nxt: tcp("snd_nxt")?,
        segs_out: tcp("segs_out")?,
        repair,
        repair_mask: 1 << bit,
        err_soft: btf.offset_of("sock", "sk_err_soft")?,
        receive_qlen: btf.offset_of("sock", "sk_receive_queue.qlen")?,
        probes_out: tcp("inet_conn.icsk_probes_out")?,
    })
}

/// Reads the offsets of what leads from a thread to its process; none where names are not to be had.
pub(super) fn task_offsets(btf: &Btf<'_>) -> TaskOffsets {
    let task = |path| btf.offset_of("task_struct", path);
    // The kernel side copies a name eight bytes at a time.
    let aligned = |comm: &u32| comm.is_multiple_of(8);
    let (Ok(group_leader), Ok(flags), Some(comm)) =
        (task("group_leader"), task("flags"), task("comm").ok().filter(aligned))
    else {
        return TaskOffsets::NONE;
    };
    TaskOffsets {
        group_leader,
        comm,
        flags,
        start_boottime: task("start_boottime").unwrap_or(ABSENT),
        self_exec_id: task("self_exec_id").unwrap_or(ABSENT),
    }
}

/// Reads the offsets from a task to its numbers: all, or the first that is not there.
pub(super) fn pid_offsets(btf: &Btf<'_>) -> Result<PidOffsets, BtfError> {
    // Before 4.19 (commit 2c4704756cab) it was in an array of `struct pid_link`.
    Ok(PidOffsets {
        thread_pid: btf.offset_of("task_struct", "thread_pid")?,
        pid_level: btf.offset_of("pid", "level")?,
        pid_numbers: btf.offset_of("pid", "numbers")?,
        upid_size: btf.size_of("upid")?,
        upid_nr: btf.offset_of("upid", "nr")?,
        upid_ns: btf.offset_of("upid", "ns")?,
        pidns_inum: btf.offset_of("pid_namespace", "ns.inum")?,
    })
}

/// Whether `bpf_get_current_task_btf()` is there (5.11): all tracing programs may call it then.
pub(super) fn has_task_btf(btf: &Btf<'_>) -> bool {
    btf.enum_value("bpf_func_id", "BPF_FUNC_get_current_task_btf").is_ok()
}

/// Reads the offsets between a task's file descriptor and the socket behind it; `record_ret` is
/// where the record of the system call's exit has the descriptor.
pub(super) fn file_offsets(btf: &Btf<'_>, record_ret: u32) -> Result<FileOffsets, BtfError> {
    Ok(FileOffsets {
        task_files: btf.offset_of("task_struct", "files")?,
        files_fdt: btf.offset_of("files_struct", "fdt")?,
        fdt_fd: btf.offset_of("fdtable", "fd")?,
        file_private_data: btf.offset_of("file", "private_data")?,
        socket_file: btf.offset_of("socket", "file")?,
        socket_sk: btf.offset_of("socket", "sk")?,
        msk_first: btf.offset_of("mptcp_sock", "first").unwrap_or(ABSENT),
        record_ret,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::tests::vmlinux;

    #[test]
    fn finds_what_totals_and_accepts_need() {
        let Some(data) = vmlinux() else { return };
        let btf = Btf::parse(&data).unwrap();
        let sock = sock_offsets(&btf).unwrap();
        let totals = totals_offsets(&btf).unwrap();
        // tcp_sock begins with the socket.
        assert!(totals.bytes_acked > sock.sk_socket && totals.snd_una > sock.sk_socket);
        assert_eq!(file_offsets(&btf, 16).unwrap().record_ret, 16);
        let task = task_offsets(&btf);
        let all = [task.group_leader, task.comm, task.flags, task.start_boottime];
        assert!(!all.contains(&ABSENT) && task.self_exec_id != ABSENT, "{task:?}");
        assert!(matches!(btf.arguments("inet_csk_accept").unwrap(), 2 | 4));
        assert_eq!(btf.arguments("btf_trace_tcp_receive_reset").unwrap(), 2);
        assert!(matches!(btf.arguments("btf_trace_tcp_send_reset").unwrap(), 3 | 4));
        assert!(btf.arguments("no_such_function").is_err());
        assert!(btf.arguments("u32").is_err());
    }

    /// Constant from 5.10 to 7.3 on x86-64.
    #[test]
    fn finds_this_kernels_fields() {
        let Some(data) = vmlinux() else { return };
        let offsets = sock_offsets(&Btf::parse(&data).unwrap()).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
            assert_eq!((offsets.skc_dport, offsets.skc_num, offsets.skc_family), (12, 14, 16));
            assert_eq!((offsets.skc_v6_daddr, offsets.skc_v6_rcv_saddr), (56, 72));
            assert_eq!(offsets.skc_flags, 96);
        }
        assert_eq!((offsets.sock_dead_bit, offsets.sock_linger_bit), (0, 4));
        assert_eq!(offsets.sock_done_bit, 1);
    }
}
