package test

import (
	"bytes"
	"encoding/json"
	"html"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/xcarp/xcarp/internal/bench"
	"github.com/xcarp/xcarp/internal/nstest"
)

// look is what a browser says of the page, put into its title.
const look = `<script>
document.querySelectorAll('details').forEach(d => d.open = true);
const say = {svgs: [], curves: [], width: document.documentElement.scrollWidth, room: innerWidth, overflow: [], errors: []};
for (const svg of document.querySelectorAll('svg')) {
  const r = svg.getBoundingClientRect(), v = svg.viewBox.baseVal;
  say.svgs.push({class: svg.getAttribute('class'), width: r.width, height: r.height});
  for (const t of svg.querySelectorAll('text,rect,path')) {
    const b = t.getBBox();
    if (b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1 || b.y + b.height > v.height + 1) say.overflow.push(t.outerHTML);
  }
}
const texts = [...document.querySelectorAll('svg.ecdf text.key')].map(t => t.getBoundingClientRect());
texts.forEach((a, i) => texts.slice(i + 1).forEach(b => {
  if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3) say.overflow.push('keys overlap');
}));
if (innerWidth > 1200) for (const w of document.querySelectorAll('.wide')) if (w.scrollWidth > w.clientWidth) say.overflow.push('a table of ' + w.scrollWidth + ' in ' + w.clientWidth);
for (const p of document.querySelectorAll('.curve')) say.curves.push({system: p.dataset.system, stroke: getComputedStyle(p).stroke, length: p.getTotalLength()});
document.title = 'LOOK' + JSON.stringify(say);
</script>`

// TestReportInABrowser lets a browser draw the report, and asks it what it sees.
func TestReportInABrowser(t *testing.T) {
	nstest.RequireProgram(t, "chromium-headless-shell")
	var page bytes.Buffer
	if err := bench.Example().HTML(&page); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "report.html")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(page.String(), "</body>", look+"</body>", 1))
	for _, size := range []string{"1280,900", "500,900"} {
		dom := chromium(t, dir, "--window-size="+size, "--dump-dom", "file://"+file)
		m := regexp.MustCompile(`<title>LOOK(.*?)</title>`).FindSubmatch(dom)
		if m == nil {
			t.Fatalf("%s: the page's title is not what the script made it: %.300s", size, dom)
		}
		var saw struct {
			SVGs []struct {
				Class         string
				Width, Height float64
			}
			Curves []struct {
				System, Stroke string
				Length         float64
			}
			Width, Room float64
			Overflow    []string
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(string(m[1]))), &saw); err != nil {
			t.Fatalf("%s: %v in %s", size, err, m[1])
		}
		// Two sections, each with a distribution and strips of three systems.
		if len(saw.SVGs) != 2*4 || len(saw.Curves) != 2*2 {
			t.Errorf("%s: %d pictures, %d curves, want 8 and 4", size, len(saw.SVGs), len(saw.Curves))
		}
		for _, s := range saw.SVGs {
			if s.Width < 300 || s.Height < 40 {
				t.Errorf("%s: a picture of %s is %.0f × %.0f", size, s.Class, s.Width, s.Height)
			}
		}
		strokes := map[string]string{}
		for _, c := range saw.Curves {
			strokes[c.System] = c.Stroke
			if c.Length < 400 {
				t.Errorf("%s: the curve of %s has a length of %.0f", size, c.System, c.Length)
			}
		}
		if len(strokes) != 2 || strokes["xcarp fast"] == strokes["frr 10ms"] || strokes["xcarp fast"] != "rgb(11, 95, 255)" {
			t.Errorf("%s: colours %v", size, strokes)
		}
		if saw.Width > saw.Room {
			t.Errorf("%s: the page is %.0f wide in a window of %.0f", size, saw.Width, saw.Room)
		}
		if len(saw.Overflow) > 0 {
			t.Errorf("%s: %d things are drawn outside of their pictures or over each other, first %s", size, len(saw.Overflow), saw.Overflow[0])
		}
	}

	write(page.String())
	shot := filepath.Join(dir, "report.png")
	chromium(t, dir, "--window-size=1280,1400", "--screenshot="+shot, "file://"+file)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	count := map[color.RGBA]int{}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			r, g, b, _ := img.At(x, y).RGBA()
			count[color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}]++
		}
	}
	for name, c := range map[string]color.RGBA{
		"xcarp's curve": {0x0b, 0x5f, 0xff, 255}, "frr's curve": {0xd6, 0x33, 0x6c, 255},
		"what flows": {0xb7, 0xdf, 0xc3, 255}, "a gap": {0xcf, 0x22, 0x2e, 255},
	} {
		if count[c] < 100 {
			t.Errorf("%s: %d pixels of its colour", name, count[c])
		}
	}
}

// chromium runs the browser and returns what it prints.
func chromium(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("chromium-headless-shell", append([]string{
		"--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" + filepath.Join(dir, "profile"),
	}, args...)...)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium %v: %v: %s", args, err, stderr.Bytes())
	}
	return out
}
