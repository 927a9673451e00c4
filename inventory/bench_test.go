package inventory

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/vsfleet/vsfleet/internal/yamlpos"
)

// fleet is an inventory of n hosts with ten guests each, written in the way
// that is most work: every host and every guest by itself.
func fleet(n int) string {
	var b strings.Builder
	b.WriteString("hosts:\n")
	for i := range n {
		fmt.Fprintf(&b, "  host%04d:\n    address: 10.0.%d.%d\n    labels: {site: s%d, rack: r%d}\n    vars: {domain: example.net}\n", i, i/250, i%250+1, i%7, i%50)
	}
	b.WriteString("groups:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  rack%d: {hosts: [\"host??%d?\"], vars: {rack: %d}}\n", i, i%10, i)
	}
	b.WriteString("images: {deb: {method: debootstrap, args: [-d, bookworm]}}\nguests:\n")
	for i := range n {
		for j := range 10 {
			fmt.Fprintf(&b, "  g%04d-%d:\n    on: host%04d\n    image: deb\n    context: %d\n    hostname: \"g%d.${host.name}.${vars.domain}\"\n    network: {mode: shared, address: host, ports: [%d/tcp, %d-%d/udp]}\n    limits: {memory: 512M, cpu: 1.5, processes: 500}\n",
				i, j, i, 100+j, j, 80+1000*j, 2000+100*j, 2010+100*j)
		}
	}
	return b.String()
}

// templates is the same fleet as a person would write it.
func templates(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "hosts:\n  host[0001:%04d]: {address: \"${host.name}.example.net\", labels: {site: fra}, vars: {domain: example.net}}\n", n)
	b.WriteString("groups: {every: {hosts: \"host*\"}}\nimages: {deb: {method: debootstrap, args: [-d, bookworm]}}\nguests:\n")
	for j := range 10 {
		fmt.Fprintf(&b, "  g%d: {on: \"every:site=fra\", image: deb, context: %d, hostname: \"g%d.${host.name}.${vars.domain}\", network: {ports: [%d/tcp]}, limits: {memory: 512M, cpu: 1.5}}\n", j, 100+j, j, 80+1000*j)
	}
	return b.String()
}

func BenchmarkLoad(b *testing.B) {
	for _, row := range []struct{ name, text string }{
		{"1000 hosts with 10 guests each, all written out", fleet(1000)},
		{"1000 hosts with 10 guests each, as templates", templates(1000)},
	} {
		b.Run(row.name, func(b *testing.B) {
			path := write(b, b.TempDir(), "fleet.yml", row.text)
			b.ReportAllocs()
			for b.Loop() {
				inv, err := Load(path)
				if err != nil {
					b.Fatal(err)
				}
				if len(inv.Hosts) != 1000 || len(inv.Hosts[999].Guests) != 10 {
					b.Fatal("not all hosts and guests are there")
				}
			}
		})
	}
}

// BenchmarkParse is what YAML alone takes of BenchmarkLoad.
func BenchmarkParse(b *testing.B) {
	text := []byte(fleet(1000))
	b.ReportAllocs()
	for b.Loop() {
		var root yaml.Node
		if err := yaml.Unmarshal(text, &root); err != nil {
			b.Fatal(err)
		}
	}
}

// The search for a nearest word compares with every name, and everything is
// wrong at once if the file with the hosts is an old one.
func TestTenThousandErrorsAreReportedWithAHundredGuesses(t *testing.T) {
	_, err := load(t, strings.ReplaceAll(fleet(1000), "on: host", "on: hots"))
	if err == nil {
		t.Fatal("no error")
	}
	text := err.Error()
	if lines := strings.Count(text, "\n") + 1; lines != 10000 {
		t.Errorf("%d lines of errors, want 10000", lines)
	}
	if guesses := strings.Count(text, "did you mean"); guesses != yamlpos.MaxGuesses {
		t.Errorf("%d guesses, want %d", guesses, yamlpos.MaxGuesses)
	}
}
