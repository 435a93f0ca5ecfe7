#!/bin/sh
# ucarp(8) calls this with the interface and the address; it knows IPv4 alone, so
# the address of the other family moves with it. The kernel announces that one.
case "$1" in
eth0) six=2001:db8:1::1/64 ;;
eth1) six=fd00:1::1/64 ;;
esac
ip addr add "$2/24" dev "$1"
ip addr add "$six" dev "$1" nodad
