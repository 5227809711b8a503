# Before a removal: no process may outlive its program. An upgrade restarts it in post-install.sh.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now tcptrace.service || :
fi
