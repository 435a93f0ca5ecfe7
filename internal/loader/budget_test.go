package loader

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/xcarp/xcarp/internal/nstest"
)

// verifierBudget is how many instructions the verifier may walk through in one
// program. It is time at each start: on a loaded machine half a million of them
// outlast a lease, and a restart would cost a transition.
const verifierBudget = 90_000

func TestVerifierIsNotKeptBusy(t *testing.T) {
	nstest.RequireRoot(t)
	for _, load := range []func() (*ebpf.CollectionSpec, error){loadXdp, loadIngress, loadEgress, loadPulse, loadPass} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Fatalf("%+v", err)
		}
		t.Cleanup(coll.Close)
		for name, prog := range coll.Programs {
			info, err := prog.Info()
			if err != nil {
				t.Fatal(err)
			}
			n, ok := info.VerifiedInstructions()
			if !ok {
				t.Fatalf("the kernel does not say what %s cost the verifier", name)
			}
			t.Logf("%s: %d instructions walked through", name, n)
			if n > verifierBudget {
				t.Errorf("%s cost the verifier %d instructions, at most %d", name, n, verifierBudget)
			}
		}
	}
}
