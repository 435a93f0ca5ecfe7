package sim

import (
	"os"
	"strconv"
	"testing"
)

func TestOne(t *testing.T) {
	s, _ := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	r := Run(s, os.Stdout, nil)
	t.Log(r.Broken)
}
