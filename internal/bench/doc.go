// Package bench turns the runs of a benchmark into what is printed: it rejects
// what the rig itself spoilt, takes medians, and writes the table, the JSON and
// the report. It is pure: it measures nothing and opens nothing.
//
// One rule rejects runs, for every system: the prober's own stamps show that it
// stood still for more than RejectGap within RejectWindow of the fault. Whatever
// else looks odd stays in. A row that lost more than a third of its runs that way
// is void: it has no figures. All runs, also the rejected ones, are in the JSON.
package bench
