package journal

import (
	"time"

	"go.uber.org/zap/zapcore"
)

// core makes events of log entries.
type core struct {
	j    *Journal
	with []zapcore.Field
}

// Core returns the side that a logger writes to. It takes entries of level info and
// above, whatever else the logger writes.
func (j *Journal) Core() zapcore.Core { return &core{j: j} }

// Enabled implements zapcore.LevelEnabler.
func (c *core) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{j: c.j, with: append(c.with[:len(c.with):len(c.with)], fields...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, fs := range [][]zapcore.Field{c.with, fields} {
		for _, f := range fs {
			f.AddTo(enc)
		}
	}
	for k, v := range enc.Fields {
		if d, ok := v.(time.Duration); ok {
			enc.Fields[k] = d.Seconds() // as the log has it
		}
	}
	c.j.Add(Event{At: e.Time, Level: e.Level.String(), Text: e.Message, Fields: enc.Fields})
	return nil
}

// Sync implements zapcore.Core. Run does what there is to do.
func (c *core) Sync() error { return nil }
