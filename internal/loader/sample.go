package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/xcarp/xcarp/internal/carp"
)

// Sample is an advert that the programs refused, or a VRRP packet with the number
// of a vhid: one a second at most of each vhid and reason.
type Sample struct {
	At   time.Time // boot clock
	Why  string    // the name of the counter
	From netip.Addr
	MAC  net.HardwareAddr
	TTL  uint8
	Len  int    // of the payload, by the IP header
	Data []byte // its beginning: at most the header and a trailer
}

// Samples is the way of samples to one reader.
type Samples struct {
	reader *ringbuf.Reader
	names  []string
}

// Samples opens the port's samples. What waits there from before is read first.
func (p *Port) Samples() (*Samples, error) {
	p.alive.RLock()
	defer p.alive.RUnlock()
	if p.maps == nil {
		return nil, ErrClosed
	}
	names, err := reasons()
	if err != nil {
		return nil, err
	}
	r, err := ringbuf.NewReader(p.maps.byName[xdpMapSamples])
	if err != nil {
		return nil, fmt.Errorf("open samples of %s: %w", p.name, err)
	}
	return &Samples{r, names}, nil
}

// Read waits for the next sample. After Close it returns ErrClosed.
func (s *Samples) Read() (Sample, error) {
	for {
		r, err := s.reader.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return Sample{}, ErrClosed
		}
		if err != nil {
			return Sample{}, fmt.Errorf("read samples: %w", err)
		}
		if len(r.RawSample) < int(unsafe.Sizeof(xdpSample{})) {
			continue // of another version
		}
		return s.sample(r.RawSample), nil
	}
}

// Close ends a Read that waits, and all that follow.
func (s *Samples) Close() error { return s.reader.Close() }

func (s *Samples) sample(b []byte) Sample {
	var raw xdpSample
	if _, err := binary.Decode(b, binary.NativeEndian, &raw); err != nil {
		panic(err) // the length was checked
	}
	out := Sample{
		At:   carp.BootTime(time.Duration(raw.At)),
		From: netip.AddrFrom16(raw.From.In6U.U6Addr8).Unmap(),
		MAC:  net.HardwareAddr(raw.Mac[:]),
		TTL:  raw.Ttl,
		Len:  int(raw.Len),
		Data: raw.Data[:min(int(raw.Have), len(raw.Data))],
	}
	if int(raw.Why) < len(s.names) {
		out.Why = s.names[raw.Why]
	}
	return out
}
