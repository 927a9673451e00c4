package transport

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/vsfleet/vsfleet/fleet/transport/sshtest"
)

// A file without patterns, hashes and marks is looked up by name: with the same answers as
// by the lines.
func TestIndexOfKnownHosts(t *testing.T) {
	dir := t.TempDir()
	var keys []ssh.PublicKey
	for _, name := range []string{"a", "b", "c"} {
		key, _ := sshtest.NewKey(t, dir, name)
		keys = append(keys, key.PublicKey())
	}
	line := func(names string, key int) string {
		return names + " " + string(ssh.MarshalAuthorizedKey(keys[key]))
	}
	text := line("web1", 0) + line("web2,192.0.2.2", 1) + line("[web1]:2222", 1) + line("web1", 2) + line("[2001:db8::1]:23,2001:db8::2", 0) + "# web3\n"
	plain, other := filepath.Join(dir, "plain"), filepath.Join(dir, "other")
	write(t, plain, text)
	write(t, other, text+line("*.example.net", 0))
	indexed, err := readKnownHosts(plain)
	if err != nil {
		t.Fatal(err)
	}
	byLines, err := readKnownHosts(other)
	if err != nil {
		t.Fatal(err)
	}
	if indexed.exact == nil || byLines.exact != nil {
		t.Fatalf("indexed: %t, %t", indexed.exact != nil, byLines.exact != nil)
	}
	for _, endpoint := range []string{
		"web1:22", "web1:2222", "web1:23", "web2:22", "192.0.2.2:22", "web3:22", "WEB1:22",
		"[2001:db8::1]:23", "[2001:db8::2]:22",
	} {
		t.Run(endpoint, func(t *testing.T) {
			if a, b := indexed.algorithms(endpoint), byLines.algorithms(endpoint); !slices.Equal(a, b) {
				t.Errorf("algorithms %q, by lines %q", a, b)
			}
			for i, key := range keys {
				a, b := indexed.check(endpoint, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 22}, key), byLines.check(endpoint, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 22}, key)
				if strings.ReplaceAll(fmt.Sprint(a), plain, other) != fmt.Sprint(b) {
					t.Errorf("key %d: %v, by lines %v", i, a, b)
				}
			}
		})
	}
}
