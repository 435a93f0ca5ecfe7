// Package doctor looks at a machine as a router of a CARP group would have to live
// on it, and says what is right, what is doubtful and what cannot work, each with
// what to do about it.
//
// [Look] reads what is (kernel, interfaces, sysctls, who else manages them), [Listen]
// hears for a while what others say on the carpdevs, and [Examine] judges: it is a
// function of what the two found, and has no other source.
//
// It asks more than the check of a configuration does: nothing here keeps a daemon
// from running, but for what it calls a failure.
package doctor
