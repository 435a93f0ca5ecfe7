package loader

import "testing"

// The sysctls of an interface go with its name.
func TestARenamedCarpdevStaysARouter(t *testing.T) {
	requirePrograms(t, "ip")
	l := newLAN(t)
	p := l.open(t, Options{})
	l.node.Sysctl("net/ipv6/conf/"+nodeDev+"/forwarding", "1")
	for _, name := range []string{nodeDev, "renamed0"} {
		if name != nodeDev {
			l.node.Exec("ip", "link", "set", "dev", nodeDev, "down")
			l.node.Exec("ip", "link", "set", "dev", nodeDev, "name", name)
			l.node.Exec("ip", "link", "set", "dev", name, "up")
		}
		l.node.Must(p.Recheck)
		if err := p.maps.updatePort(func(port *xdpPort) {
			if port.Flags&xdpPortFlagPORT_ROUTER == 0 {
				t.Errorf("as %s it does not say that it is a router", name)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
