// Package command runs programs that an operator named: checks and hooks. A
// program gets no shell, no environment but what is given, no rights but those of
// its user, a process group of its own, and a time limit, after which the whole
// group is killed. What a program leaves behind in its group is killed when it
// ends: what must stay has to leave by setsid or through the service manager.
package command
