#!/bin/sh
# What conntrackd(8) does when a router becomes primary, backup or faulty, in the
# order of conntrack-tools' own example for keepalived.
ctl() { conntrackd -C "{{.Dir}}/conntrackd.conf" "$1"; }
case "$1" in
primary)
	ctl -c # commit the external cache to the kernel
	ctl -f # flush both caches
	ctl -R # resynchronise the internal one with the kernel
	ctl -B # send it whole to the backup
	;;
backup)
	ctl -t # shorten the timers of what a primary left in the kernel
	ctl -n # ask the primary for all of its table
	;;
fault)
	ctl -t
	;;
esac
