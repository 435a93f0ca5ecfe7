// Package smoke asks a kernel of the matrix the few questions on which the
// dataplane rests, in the smallest form: does an XDP program load, run, attach to
// a real driver in native mode, hold its place, and survive as a pin; is the
// conntrack table readable. When the loader's tests fail on a kernel and these
// pass, the fault is ours.
//
// The programs are written in assembler, so nothing here is generated. The tests
// touch no interface of the machine: outside a guest those that need eth0 skip.
package smoke
