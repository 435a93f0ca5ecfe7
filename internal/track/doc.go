// Package track watches what this node needs, outside the election, to be a good
// master: links, routes, neighbours, services, processes, files, and whatever a
// program can tell.
//
// A Probe answers whether the thing is there, once. A Track asks it again and
// again, never twice at the same time, and counts: Rise answers in a row make it
// UP, Fall make it DOWN. Until that it is PENDING and says nothing. A probe that
// does not come back by its timeout has failed; as long as it hangs, every further
// check fails, and no second one is begun.
//
// Links, routes and processes tell when they change, so their tracks need no short
// interval: the Watcher hears the kernel, and a process is held by its pidfd.
package track
