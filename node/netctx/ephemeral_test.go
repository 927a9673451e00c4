package netctx

import (
	"fmt"
	"os"
	"testing"

	"github.com/vsfleet/vsfleet/internal/port"
)

// setting changes one of net.ipv4 while the test runs.
func setting(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/net/ipv4/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestPortsThatAnyConnectionMayHave(t *testing.T) {
	setting(t, "ip_local_port_range", "32768 60999")
	for _, c := range []struct {
		name, reserved string
		ports          []string
		want           string
	}{
		{"none", "", nil, "[]"},
		{"below and above", "", []string{"80/tcp", "32767/udp", "61000-65535/tcp"}, "[]"},
		{"inside", "", []string{"51820/udp", "443/tcp"}, "[51820/udp]"},
		{"across the borders", "", []string{"30000-40000/tcp", "60000-65535/udp"}, "[32768-40000/tcp 60000-60999/udp]"},
		{"reserved", "51820", []string{"51820/udp"}, "[]"},
		{"reserved in the middle and at the ends", "39990-40000,40005,40010", []string{"40000-40010/tcp"}, "[40001-40004/tcp 40006-40009/tcp]"},
		{"all reserved", "1-65535", []string{"1-65535/tcp", "1-65535/udp"}, "[]"},
		{"others reserved", "8080,60999", []string{"60998/tcp"}, "[60998/tcp]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			setting(t, "ip_local_reserved_ports", c.reserved+"\n")
			got, err := EphemeralPorts(spec(2, c.ports).Ports)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
	if _, err := EphemeralPorts([]port.Range{{Proto: "icmp", First: 1, Last: 1}}); err == nil {
		t.Error("no error for a protocol without ports")
	}
}

func FuzzParseReserved(f *testing.F) {
	for _, text := range []string{"", "8080,9148-9150", "0-65535", "1-", ",", "9-1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseReserved(text)
		if err != nil {
			return
		}
		for i, r := range list {
			if r.First == 0 || r.Last < r.First || i > 0 && r.First <= list[i-1].Last {
				t.Errorf("%q: %v", text, list)
			}
		}
	})
}
