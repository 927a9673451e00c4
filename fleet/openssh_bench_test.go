package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/vsfleet/vsfleet/inventory"
)

// BenchmarkThousandHosts makes the settings of a thousand hosts.
func BenchmarkThousandHosts(b *testing.B) {
	dir := b.TempDir()
	for name, text := range map[string]string{
		"shipped": "Host *\n SendEnv LANG\n HashKnownHosts yes\n",
		"blocks":  "Host web1*\n User alice\n IdentityFile ~/.ssh/%h\nHost *\n ServerAliveInterval 20\n",
		"tokens":  "Host *\n HostName %h.example.net\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		var hosts []*inventory.Host
		for i := range 1000 {
			hosts = append(hosts, &inventory.Host{Name: fmt.Sprint("web", i), Address: fmt.Sprint("web", i), Port: 22})
		}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				if _, err := (&Access{Config: file}).allSettings(b.Context(), hosts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
