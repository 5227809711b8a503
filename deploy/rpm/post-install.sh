# After the installation: systemd reads the unit, and a running service restarts with the new program. It
# is neither enabled nor started: to trace a host is somebody's decision.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # $1 is the number of versions installed: 2 in an upgrade.
    if [ "$1" -gt 1 ]; then
        systemctl try-restart tcptrace.service || echo "tcptrace.service was not restarted" >&2
    fi
fi
