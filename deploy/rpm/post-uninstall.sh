# After a removal: systemd forgets the unit. What the service wrote to /var/lib/tcptrace stays.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    systemctl reset-failed tcptrace.service 2>/dev/null || :
fi
