package fleet

import (
	"strings"
	"testing"
)

func TestParseForward(t *testing.T) {
	for _, tt := range []struct{ in, listen, to, err string }{
		{in: "80", listen: "127.0.0.1:80", to: "127.0.0.1:80"},
		{in: "8080:80", listen: "127.0.0.1:8080", to: "127.0.0.1:80"},
		{in: "0:80", listen: "127.0.0.1:0", to: "127.0.0.1:80"},
		{in: "localhost:8080:80", listen: "127.0.0.1:8080", to: "127.0.0.1:80"},
		{in: "0.0.0.0:8080:80", listen: "0.0.0.0:8080", to: "127.0.0.1:80"},
		{in: "8080:10.0.0.1:80", listen: "127.0.0.1:8080", to: "10.0.0.1:80"},
		{in: "[::1]:8080:[::1]:80", listen: "[::1]:8080", to: "[::1]:80"},
		{in: "8080:[2001:db8::1]:80", listen: "127.0.0.1:8080", to: "[2001:db8::1]:80"},
		{in: "", err: `"" is neither a port nor an address`},
		{in: "www", err: `"www" is neither`},
		{in: "8080:0", err: "the guest's port cannot be 0"},
		{in: "8080:99999", err: `"99999" is neither`},
		{in: "127.0.0.1", err: `"" is not a port`},
		{in: "1:2:3", err: `"3" is too much`},
		{in: "8080:80/tcp", err: `"80/tcp" is neither`},
		{in: "1.2.3.4:1:1.2.3.4:2:3", err: `"3" is too much`},
	} {
		t.Run(tt.in, func(t *testing.T) {
			f, err := ParseForward(tt.in)
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "as 8080:80")):
				t.Errorf("got %v, want %q", err, tt.err)
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.to != "" && (f.Listen.String() != tt.listen || f.To.String() != tt.to):
				t.Errorf("got %s, want %s to %s", f, tt.listen, tt.to)
			}
		})
	}
}

func FuzzParseForward(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "[::1]:8080:[::1]:80", "localhost:1:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, err := ParseForward(s)
		if err != nil {
			return
		}
		if !one.To.Addr().IsValid() || one.To.Port() == 0 || !one.Listen.Addr().IsValid() {
			t.Errorf("%q: %s", s, one)
		}
	})
}
