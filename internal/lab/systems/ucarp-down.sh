#!/bin/sh
# ucarp(8) calls this with the interface and the address.
case "$1" in
eth0) six=2001:db8:1::1/64 ;;
eth1) six=fd00:1::1/64 ;;
esac
ip addr del "$2/24" dev "$1"
ip addr del "$six" dev "$1"
