// Package config turns the text of /etc/xcarp/xcarp.yaml into a Config, and
// says what is wrong with it in words that name the place and the remedy.
//
// There is one checker for everybody: `xcarp run`, `xcarp check` and SIGHUP
// all call Load and then Check, so a file that passes the one passes the others.
//
//	Load   text → Config: syntax, keys, types, ranges, references between
//	       sections, and the files that hold secrets. Needs no network.
//	Check  Config × System → problems: does this fit the machine it would run on?
//	Facts  reads the System from the kernel, in the caller's network namespace.
//
// A Config is complete: defaults are filled in, what depends on the node name is
// resolved (advskew, the own sync address), addresses are sorted. Nothing that
// was written in the file is ignored: a key that is unknown, or that a later
// version will have, is an error.
//
// Lines of ifconfig and sysctl can be laid over a text (lines.go, edit.go): they change
// its tree before it is read, so that one reader judges what comes out.
//
// Load goes three steps. parse (tree.go) makes a tree of nodes that know their
// line and column; reader (reader.go, group.go, sync.go) walks it and collects
// every problem it can find at once; last, the secrets are read (secret.go).
//
// A Problem is one line, file:line:column: what: what to do, and an excerpt with
// a caret for terminals. Neither ever shows a secret: excerpts mask what follows
// a key that looks like a password, also a misspelt one, and the types Secret and
// Key print as "[redacted]" whatever the verb or encoding.
package config
