// Command faults runs the tests of the table of faults, TestFaultNN_Case, wherever
// they are, and prints a row for each: the case, its result, and the figures that
// the test gave by testing.T.Attr.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// rows are the numbers that must have a test.
var rows = slices.Concat(span(1, 20), span(37, 38), span(54, 59))

func span(from, to int) []int {
	var all []int
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

// A row is one test, or a number without one.
type row struct {
	number  int
	name    string
	result  string // pass, fail or skip
	took    time.Duration
	figures []figure
	output  []string
}

type figure struct{ key, value string }

// event is a line of `go test -json`: see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	Test       string
	Output     string
	Elapsed    float64 // seconds
	Key, Value string  // of the action attr
}

func main() {
	run := flag.String("run", "^TestFault[0-9]", "regular expression of tests")
	verbose := flag.Bool("v", false, "show the output of tests that passed, too")
	flag.Parse()
	ok, err := table(os.Stdout, *run, *verbose, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// table runs the tests and prints the table. It reports whether all rows hold.
func table(w io.Writer, run string, verbose bool, packages []string) (bool, error) {
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	args := append([]string{"test", "-json", "-count=1", "-p", "1", "-timeout", "150m", "-run", run}, packages...)
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("go test: %w", err)
	}
	all, broken, err := collect(out)
	if err != nil {
		return false, err
	}
	failed := cmd.Wait() != nil
	all = complete(all, run)

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROW\tCASE\tRESULT\tTIME\tFIGURES")
	bad := 0
	for _, r := range all {
		if r.result != "pass" {
			bad++
		}
		first := figure{}
		if len(r.figures) > 0 {
			first = r.figures[0]
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", r.number, r.words(), r.result, seconds(r.took), first)
		for _, f := range r.figures[min(1, len(r.figures)):] {
			fmt.Fprintf(t, "\t\t\t\t%s\n", f)
		}
	}
	if err := t.Flush(); err != nil {
		return false, err
	}
	fmt.Fprintf(w, "%d rows, %d pass, in %s\n", len(all), len(all)-bad, seconds(time.Since(began)))
	for _, r := range all {
		if len(r.output) > 0 && (r.result != "pass" || verbose) {
			fmt.Fprintf(w, "\n== %d %s: %s\n%s", r.number, r.words(), r.result, strings.Join(r.output, ""))
		}
	}
	fmt.Fprint(w, strings.Join(broken, ""))
	return bad == 0 && !failed, nil
}

var numbered = regexp.MustCompile(`^TestFault(\d+)_(\w+)`)

// collect reads what go test says until it ends. broken is what it said about no
// test, such as that a package does not compile.
func collect(r io.Reader) (all []*row, broken []string, err error) {
	rows := map[string]*row{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, nil, fmt.Errorf("read %q of go test: %w", lines.Text(), err)
		}
		top, sub, isSub := strings.Cut(e.Test, "/")
		m := numbered.FindStringSubmatch(top)
		if m == nil {
			idle := strings.HasPrefix(e.Output, "ok ") || strings.HasPrefix(e.Output, "?") || e.Output == "PASS\n" ||
				strings.HasPrefix(e.Output, "testing: warning: no tests")
			if !idle && (e.Action == "output" || e.Action == "build-output") {
				broken = append(broken, e.Output)
			}
			continue
		}
		id := e.Package + " " + top
		x := rows[id]
		if x == nil {
			x = &row{name: m[2], result: "did not end"}
			x.number, _ = strconv.Atoi(m[1])
			rows[id] = x
			all = append(all, x)
		}
		switch e.Action {
		case "attr":
			f := figure{e.Key, e.Value}
			if isSub {
				f.key = sub + ": " + f.key
			}
			x.figures = append(x.figures, f)
		case "output":
			x.output = append(x.output, e.Output)
		case "pass", "fail", "skip":
			// A test does not count the time of parallel parts.
			x.took = max(x.took, time.Duration(e.Elapsed*float64(time.Second)))
			if !isSub {
				x.result = e.Action
			} else if e.Action == "skip" {
				x.figures = append(x.figures, figure{sub, "skipped"})
			}
		}
	}
	return all, broken, lines.Err()
}

// complete sorts the rows, and adds those that have no test if all were asked for.
func complete(all []*row, run string) []*row {
	if run == flag.Lookup("run").DefValue {
		for _, n := range rows {
			if !slices.ContainsFunc(all, func(r *row) bool { return r.number == n }) {
				all = append(all, &row{number: n, name: "-", result: "no test"})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *row) int {
		if a.number != b.number {
			return a.number - b.number
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}

// words turns OtherVHIDOnTwo into "other VHID on two".
func (r *row) words() string {
	var b strings.Builder
	for i, c := range r.name {
		next, prev := byte('A'), byte('A')
		if i > 0 {
			prev = r.name[i-1]
		}
		if i+1 < len(r.name) {
			next = r.name[i+1]
		}
		if i > 0 && isUpper(byte(c)) && (!isUpper(prev) || !isUpper(next)) {
			b.WriteByte(' ')
		}
		if isUpper(byte(c)) && !isUpper(next) {
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

func (f figure) String() string {
	if f.key == "" {
		return ""
	}
	return strings.ReplaceAll(f.key, "_", " ") + ": " + f.value
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
