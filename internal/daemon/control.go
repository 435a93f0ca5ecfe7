package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// SocketName is the control socket within the run-dir.
const SocketName = "xcarp.sock"

// controlGroup may use the control socket, beside root and the daemon's own user.
const controlGroup = "xcarp"

// controlled is what the API reads and moves.
type controlled interface {
	Status() Status
	ReloadKeys() ([]string, error)
}

// control serves the API: HTTP and JSON over a unix socket.
//
//	GET /v1/status         Status
//	POST /v1/keys/reload   the key_file has changed; answers {"keys": [ids]}
//	GET /metrics     Prometheus text
//
// and what the functions given as more add.
type control struct {
	log      *zap.Logger
	listener net.Listener
	server   *http.Server
}

// listenControl opens the socket: mode 0660, group xcarp where there is one. A
// socket that a dead daemon left is replaced; the caller holds the run-dir. more
// adds further requests.
func listenControl(runDir string, log *zap.Logger, d controlled, metrics *metrics, more ...func(*http.ServeMux)) (*control, error) {
	path := filepath.Join(runDir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the control socket of an earlier run: %w", err)
	}
	old := unix.Umask(0o117) // the socket is born with its mode
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	gid := -1
	if g, err := user.LookupGroup(controlGroup); err == nil {
		if gid, err = strconv.Atoi(g.Gid); err == nil {
			if err := os.Chown(path, -1, gid); err != nil {
				l.Close()
				return nil, fmt.Errorf("give the control socket to group %s: %w", controlGroup, err)
			}
		}
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(d.Status()); err != nil {
			log.Debug("status not delivered", zap.Error(err))
		}
	})
	mux.HandleFunc("POST /v1/keys/reload", func(w http.ResponseWriter, _ *http.Request) {
		ids, err := d.ReloadKeys()
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string][]string{"keys": ids}); err != nil {
			log.Debug("key ids not delivered", zap.Error(err))
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{}))
	for _, add := range more {
		add(mux)
	}

	return &control{
		log:      log,
		listener: l,
		server: &http.Server{
			Handler:           allowed(mux, gid),
			ReadHeaderTimeout: 2 * time.Second,
			ReadTimeout:       5 * time.Second,
			WriteTimeout:      10 * time.Second,
			IdleTimeout:       time.Second, // a client that keeps its connection keeps others out
			MaxHeaderBytes:    16 << 10,
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				return context.WithValue(ctx, credKey{}, peerCred(c))
			},
		},
	}, nil
}

// Run serves until the context ends.
func (c *control) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.server.Close() })
	defer stop()
	if err := c.server.Serve(&limited{Listener: c.listener, slots: make(chan struct{}, 64)}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

type credKey struct{}

// peerCred asks the kernel who connected; nil if it does not say.
func peerCred(c net.Conn) *unix.Ucred {
	u, ok := c.(*limitedConn)
	if !ok {
		return nil
	}
	raw, err := u.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil
	}
	return cred
}

// allowed serves root, the daemon's own user and members of the control group.
// The socket's mode says the same; this holds even if someone changes it.
func allowed(next http.Handler, gid int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, _ := r.Context().Value(credKey{}).(*unix.Ucred)
		if cred == nil || (cred.Uid != 0 && int(cred.Uid) != os.Geteuid() && !inGroup(cred, gid)) {
			http.Error(w, "only root and members of group "+controlGroup+" may ask", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func inGroup(cred *unix.Ucred, gid int) bool {
	if gid < 0 {
		return false
	}
	if int(cred.Gid) == gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(gid))
}

// limited bounds how many clients are served at once; more wait in the backlog.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

type limitedConn struct {
	net.Conn
	slots chan struct{}
	freed sync.Once
}

func (c *limitedConn) Close() error {
	c.freed.Do(func() { <-c.slots })
	return c.Conn.Close()
}

// Client returns an HTTP client that talks to the daemon of the run-dir.
func Client(runDir string) *http.Client {
	path := filepath.Join(runDir, SocketName)
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, // the daemon serves a bounded number of connections
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", path)
			},
		},
	}
}

// ErrNoDaemon says that nobody serves the control socket.
var ErrNoDaemon = errors.New("no daemon answers there")

// GetStatus asks the daemon of the run-dir.
func GetStatus(ctx context.Context, runDir string) (*Status, error) {
	var s Status
	if err := ask(ctx, runDir, http.MethodGet, "/v1/status", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// ReloadKeys lets the daemon of the run-dir read its key_file again.
func ReloadKeys(ctx context.Context, runDir string) error {
	return ask(ctx, runDir, http.MethodPost, "/v1/keys/reload", nil, &struct{}{})
}

// ask sends a request to the daemon of the run-dir. in may be nil; out gets the answer.
func ask(ctx context.Context, runDir, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://xcarp"+path, body)
	if err != nil {
		return err
	}
	resp, err := Client(runDir).Do(req)
	if err != nil {
		return unreachable(runDir, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		if s := strings.TrimSpace(string(why)); s != "" {
			return errors.New(s)
		}
		return fmt.Errorf("the daemon refused: %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
