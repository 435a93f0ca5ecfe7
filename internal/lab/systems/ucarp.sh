#!/bin/sh
# ucarp(8) has no groups: one process for each side.
case "$1" in
eth0) vhid=1 addr=203.0.113.1 own={{.Own.eth0}} ;;
eth1) vhid=2 addr=10.0.0.1 own={{.Own.eth1}} ;;
esac
exec ucarp --interface="$1" --srcip="$own" --addr="$addr" --vhid="$vhid" --pass=carpdiem \
	--advbase={{.AdvBase}} --advskew={{.AdvSkew}} --preempt --shutdown \
	--upscript="{{.Dir}}/ucarp-up.sh" --downscript="{{.Dir}}/ucarp-down.sh"
