package registry

import (
	"net/http"
	"strings"
	"testing"
)

func TestPlainHTTPIsForThisMachineAlone(t *testing.T) {
	passed := 0
	g := guarded{roundTrip(func(*http.Request) (*http.Response, error) { passed++; return &http.Response{}, nil })}
	for url, want := range map[string]bool{
		"http://localhost:5000/v2/": true, "http://127.0.0.1/v2/": true, "http://[::1]:5000/v2/": true, "https://registry.example/v2/": true,
		"http://registry.example/v2/": false, "http://10.0.0.1:5000/v2/": false, "http://localhost.example/v2/": false,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.RoundTrip(r); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "does not speak TLS") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if passed != 4 {
		t.Errorf("%d requests were sent, want 4", passed)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
