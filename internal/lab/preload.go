package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	preloadPort   = 9 // discard, RFC 863
	preloadAddrs  = 50_000
	preloadLimit  = 60 * time.Second
	preloadBurst  = 500 // datagrams between two breaths, so that no socket's queue overflows
	preloadRemote = "198.18.0.0/15"
)

// preload opens connections through the pair, one datagram and its answer each,
// to addresses of the benchmarking network of RFC 2544 that the server has all.
// It returns when the master knows them all and, where the system tells, the
// backup too.
func (p *pair) preload(ctx context.Context, flows int) error {
	n := p.net
	for _, r := range n.Routers() {
		if _, err := r.NS.Run(ctx, "ip", "route", "add", preloadRemote, "via", serverAddr); err != nil {
			return err
		}
		for _, key := range []string{"nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"} {
			if err := r.NS.WriteSysctl("net/netfilter/"+key, "600"); err != nil {
				return fmt.Errorf("let flows of %s live: %w", r.Name, err)
			}
		}
	}
	if _, err := n.Server.NS.Run(ctx, "ip", "route", "add", "local", preloadRemote, "dev", "lo"); err != nil {
		return err
	}
	var answered int
	err := n.Server.NS.Do(func() error {
		server, err := discard()
		if err != nil {
			return err
		}
		done := make(chan struct{})
		stop := make(chan struct{})
		go func() { defer close(done); answer(server, stop) }()
		err = n.Client.NS.Do(func() (err error) {
			answered, err = ask(ctx, flows)
			return err
		})
		close(stop)
		<-done
		return errors.Join(err, unix.Close(server))
	})
	if err != nil {
		return fmt.Errorf("open %d flows: %w", flows, err)
	}
	if answered < flows*99/100 {
		return fmt.Errorf("open %d flows: only %d were answered", flows, answered)
	}
	return p.mirrored(ctx, answered)
}

// mirrored waits until the backup knows the flows, where the system counts them.
func (p *pair) mirrored(ctx context.Context, flows int) error {
	enough := flows * 95 / 100 // roles may move meanwhile, and a datagram is not asked for again
	deadline := time.Now().Add(preloadLimit)
	for {
		st, err := p.sys.Status(ctx, p.net.B)
		if err != nil {
			return err
		}
		if !p.sys.Mirrors || st.Flows >= enough {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the backup knows %d of %d flows after %v", st.Flows, flows, preloadLimit)
		}
		if err := wait(ctx, pollInterval); err != nil {
			return err
		}
	}
}

// discard opens the server's socket. It is told to which address a datagram
// went, for the answer has to come from there.
func discard() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrInet4{Port: preloadPort}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// answer returns every datagram from where it went to.
func answer(fd int, stop <-chan struct{}) {
	buf, oob := make([]byte, 64), make([]byte, 128)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil {
			continue
		}
		// struct in_pktinfo: ifindex, spec_dst, addr. 0 lets the route decide.
		info := oob[:oobn]
		if len(info) >= unix.CmsgSpace(12) {
			binary.NativeEndian.PutUint32(info[unix.CmsgLen(0):], 0)
		}
		_, _ = unix.SendmsgN(fd, buf[:n], info, from, 0)
	}
}

// ask sends one datagram for each flow and counts the answers. Flows that were
// not answered are tried again.
func ask(ctx context.Context, flows int) (answered int, err error) {
	base := netip.MustParsePrefix(preloadRemote).Addr().As4()
	first := binary.BigEndian.Uint32(base[:]) + 1
	for opened := 0; opened < flows; opened += preloadAddrs {
		n, err := askFrom(ctx, first, min(preloadAddrs, flows-opened))
		if err != nil {
			return answered, err
		}
		answered += n
	}
	return answered, nil
}

// askFrom opens one socket and a flow to each of n addresses.
func askFrom(ctx context.Context, first uint32, n int) (answered int, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return 0, err
	}
	done := make([]bool, n)
	buf := make([]byte, 8)
	hear := func() {
		for {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return
			}
			if i := binary.BigEndian.Uint32(buf); k == 4 && int(i) < n && !done[i] {
				done[i] = true
				answered++
			}
		}
	}
	deadline := time.Now().Add(preloadLimit)
	for answered < n && time.Now().Before(deadline) {
		sent := 0
		for i := range done {
			if done[i] {
				continue
			}
			var to unix.SockaddrInet4
			to.Port = preloadPort
			binary.BigEndian.PutUint32(to.Addr[:], first+uint32(i))
			binary.BigEndian.PutUint32(buf, uint32(i))
			_ = unix.Sendto(fd, buf[:4], 0, &to)
			if sent++; sent%preloadBurst == 0 {
				hear()
				if err := wait(ctx, time.Millisecond); err != nil {
					return answered, err
				}
			}
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return answered, err
		}
		hear()
	}
	return answered, nil
}
