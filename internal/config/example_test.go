package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

const docs = "../../docs/"

func TestExampleIsValid(t *testing.T) {
	text, err := os.ReadFile(docs + "example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := write(t, dir, "k", testKey, 0o600)
	pass := write(t, dir, "p", "x", 0o600)
	paths := strings.NewReplacer("/etc/xcarp/xcarp.key", key, "/etc/xcarp/dmz.pass", pass)
	for _, c := range []struct {
		name, text string
		groups     int
	}{
		{"as it is", string(text), 2},
		{"with the part in comments", regexp.MustCompile(`(?m)^  # ((dmz|guests|  \w+): ?)`).ReplaceAllString(string(text), "  $1"), 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Load(write(t, dir, "xcarp.yaml", paths.Replace(c.text), 0o644), noEnv)
			if err != nil {
				t.Fatal(err)
			}
			if len(cfg.Warnings) > 0 || len(cfg.Groups) != c.groups {
				t.Errorf("%d groups, warnings %v", len(cfg.Groups), cfg.Warnings)
			}
			if bad := conforms(t, c.text); bad != "" {
				t.Errorf("the schema refuses it: %s", bad)
			}
		})
	}
}

// TestSchemaAgreesWithTheReader holds the schema to the keys that Load knows,
// and to the structural ones among the bad texts.
func TestSchemaAgreesWithTheReader(t *testing.T) {
	s := schema(t)
	keys := func(at map[string]any) []string {
		var k []string
		for name := range at["properties"].(map[string]any) {
			k = append(k, name)
		}
		slices.Sort(k)
		return k
	}
	prop := func(at map[string]any, name string) map[string]any {
		return at["properties"].(map[string]any)[name].(map[string]any)
	}
	for _, c := range []struct {
		section *section
		schema  map[string]any
	}{
		{root, s},
		{groupSection, prop(s, "groups")["additionalProperties"].(map[string]any)},
		{syncSection, prop(s, "sync")},
		{metricsSection, prop(s, "metrics")},
		{logSection, prop(s, "log")},
		{trackSection, prop(s, "track")["additionalProperties"].(map[string]any)},
		{hookSection, prop(s, "hooks")["additionalProperties"].(map[string]any)},
		{readySection, prop(s, "ready")},
	} {
		want := slices.Sorted(slices.Values(c.section.keys))
		if got := keys(c.schema); !slices.Equal(got, want) {
			t.Errorf("%s the schema has %q, the reader %q", c.section.name, got, want)
		}
	}
	if bad := conforms(t, pair); bad != "" {
		t.Errorf("the schema refuses a good text: %s", bad)
	}
	refused := 0
	for _, c := range bad {
		switch c.name {
		case "unknown key", "unknown key in a group", "unknown key in sync", "later, top",
			"groups as a list", "vhid 0", "vhid 256", "vhid of a word", "advbase", "advskew", "mode", "hmac",
			"xdp", "log", "no address", "address alone", "no peer", "sync of nothing", "carpdev", "metrics":
			refused++
			if conforms(t, c.text) == "" {
				t.Errorf("the schema accepts %s: %s", c.name, c.text)
			}
		}
	}
	if refused != 20 {
		t.Errorf("%d cases of 20", refused)
	}
}

// TestReferenceNamesEveryKey holds the manual to the keys that Load knows.
func TestReferenceNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile(docs + "reference/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*section{root, groupSection, syncSection, metricsSection, logSection, trackSection, hookSection, readySection} {
		for _, k := range slices.Concat(s.keys, s.later) {
			if !strings.Contains(string(text), "`"+k+"`") {
				t.Errorf("nothing about %s %s", k, s.name)
			}
		}
	}
}

func schema(tb testing.TB) map[string]any {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(docs, "xcarp.schema.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		tb.Fatal(err)
	}
	return s
}

// conforms returns why the schema refuses the text, or "".
func conforms(tb testing.TB, text string) string {
	tb.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(j, &v); err != nil {
		tb.Fatal(err)
	}
	s := schema(tb)
	return validate(tb, s, s, v, "")
}

// validate knows the part of JSON Schema that ours uses.
func validate(tb testing.TB, whole, s map[string]any, v any, at string) string {
	tb.Helper()
	for word, arg := range s {
		bad := ""
		obj, isObj := v.(map[string]any)
		arr, isArr := v.([]any)
		str, isStr := v.(string)
		num, isNum := v.(float64)
		switch word {
		case "$schema", "$id", "title", "description", "default", "$defs", "properties":
		case "$ref":
			def := strings.TrimPrefix(arg.(string), "#/$defs/")
			bad = validate(tb, whole, whole["$defs"].(map[string]any)[def].(map[string]any), v, at)
		case "type":
			_, isBool := v.(bool)
			is := map[string]bool{"object": isObj, "array": isArr, "string": isStr, "boolean": isBool,
				"integer": isNum && num == float64(int64(num))}
			several, _ := arg.([]any)
			one, _ := arg.(string)
			if !is[one] && !slices.ContainsFunc(several, func(t any) bool { return is[t.(string)] }) {
				bad = fmt.Sprintf("%s: %v is no %s", at, v, arg)
			}
		case "required":
			for _, k := range arg.([]any) {
				if _, ok := obj[k.(string)]; isObj && !ok {
					bad = fmt.Sprintf("%s: no %s", at, k)
				}
			}
		case "additionalProperties":
			known, _ := s["properties"].(map[string]any)
			for k, x := range obj {
				if p, ok := known[k].(map[string]any); ok {
					bad += validate(tb, whole, p, x, at+"/"+k)
				} else if sub, ok := arg.(map[string]any); ok {
					bad += validate(tb, whole, sub, x, at+"/"+k)
				} else {
					bad += fmt.Sprintf("%s: unknown %s", at, k)
				}
			}
		case "items":
			for i, x := range arr {
				bad += validate(tb, whole, arg.(map[string]any), x, fmt.Sprintf("%s/%d", at, i))
			}
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				bad = fmt.Sprintf("%s: %v not in %v", at, v, arg)
			}
		case "oneOf":
			n := 0
			for _, sub := range arg.([]any) {
				if validate(tb, whole, sub.(map[string]any), v, at) == "" {
					n++
				}
			}
			if n != 1 {
				bad = fmt.Sprintf("%s: %d of oneOf", at, n)
			}
		case "minimum":
			if isNum && num < arg.(float64) {
				bad = fmt.Sprintf("%s: %v < %v", at, num, arg)
			}
		case "maximum":
			if isNum && num > arg.(float64) {
				bad = fmt.Sprintf("%s: %v > %v", at, num, arg)
			}
		case "minProperties":
			if isObj && len(obj) < int(arg.(float64)) {
				bad = at + ": too few"
			}
		case "minItems":
			if isArr && len(arr) < int(arg.(float64)) {
				bad = at + ": too few"
			}
		case "minLength", "maxLength":
			if n := int(arg.(float64)); isStr && (word == "minLength" && len(str) < n || word == "maxLength" && len(str) > n) {
				bad = at + ": length"
			}
		case "pattern":
			if isStr && !regexp.MustCompile(arg.(string)).MatchString(str) {
				bad = fmt.Sprintf("%s: %q does not match", at, str)
			}
		default:
			tb.Fatalf("the test does not know the schema word %q", word)
		}
		if bad != "" {
			return bad
		}
	}
	return ""
}
