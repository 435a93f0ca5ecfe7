package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/xcarp/xcarp/internal/config"
)

// maxLine is more than any line needs, in bytes.
const maxLine = 64 << 10

// serveLines adds what changes a running node to the control API:
//
//	POST /v1/ifconfig  LineRequest → LineReply
//	POST /v1/sysctl    LineRequest → LineReply
//
// A line that is refused is answered with 422 and the problems.
func (d *Daemon) serveLines(mux *http.ServeMux) {
	for path, do := range map[string]func(LineRequest) (LineReply, error){"ifconfig": d.ifconfig, "sysctl": d.sysctl} {
		mux.HandleFunc("POST /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			var req LineRequest
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLine)).Decode(&req); err != nil {
				http.Error(w, "not a line: "+err.Error(), http.StatusBadRequest)
				return
			}
			d.change.Lock()
			defer d.change.Unlock()
			reply, err := do(req)
			d.answerLine(w, reply, err)
			if err == nil && reply.Restart {
				d.log.Info("starting over in place to follow a line", zap.String("hash", reply.Hash))
				d.exec("/proc/self/exe")
			}
		})
	}
}

// lineRefusal is the answer to a line that was refused.
type lineRefusal struct {
	Problems []*config.Problem `json:"problems"`
}

func (d *Daemon) answerLine(w http.ResponseWriter, reply LineReply, err error) {
	var answer any = reply
	w.Header().Set("Content-Type", "application/json")
	status := http.StatusOK
	if err != nil {
		answer, status = lineRefusal{config.Problems(err)}, http.StatusUnprocessableEntity
	}
	b, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		d.log.Debug("answer not delivered", zap.Error(err))
	}
	_ = http.NewResponseController(w).Flush() // the process may be replaced next
}

// postLine asks the daemon. A refusal comes back as its problems.
func postLine(ctx context.Context, runDir, path string, line LineRequest) (LineReply, error) {
	var reply LineReply
	body, err := json.Marshal(line)
	if err != nil {
		return reply, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://xcarp"+path, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := Client(runDir).Do(req)
	if err != nil {
		return reply, unreachable(runDir, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
			return reply, fmt.Errorf("read the daemon's answer: %w", err)
		}
		return reply, nil
	case http.StatusUnprocessableEntity:
		var r lineRefusal
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
			return reply, fmt.Errorf("read the daemon's answer: %w", err)
		}
		errs := make([]error, len(r.Problems))
		for i, p := range r.Problems {
			errs[i] = p
		}
		return reply, errors.Join(errs...)
	}
	return reply, fmt.Errorf("the daemon refused: %s", resp.Status)
}

// unreachable says why the control socket does not answer.
func unreachable(runDir string, err error) error {
	path := filepath.Join(runDir, SocketName)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%s: %w: start it with `xcarp run`, or give --run-dir", path, ErrNoDaemon)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: permission denied: be root or a member of group %s", path, controlGroup)
	}
	return fmt.Errorf("ask the daemon: %w", err)
}
