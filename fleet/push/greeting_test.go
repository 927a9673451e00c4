package push

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vsfleet/vsfleet/node/api"
)

func TestReadGreeting(t *testing.T) {
	for _, row := range []struct {
		name, in string
		want     greeting
		err      string
	}{
		{name: "vsnode serves", in: "\x00vsnode-exec-1 abc\n" + api.Preamble, want: greeting{serves: true, hash: "abc"}},
		{name: "the host needs one", in: "\x00vsnode-need-1 x86_64 0 zstd\n", want: greeting{machine: "x86_64", uid: "0", form: "zstd"}},
		{name: "the host lacks tools", in: "\x00vsnode-need-1   none,uname,id\n", want: greeting{form: "none", missing: "uname,id"}},
		{name: "chatter comes before", in: "Welcome!\nno newline" + api.Preamble, want: greeting{serves: true}},
		{name: "chatter looks like ours", in: "\x00vsnode-need-1\n\x00\x00vsnode-serve-1\n", want: greeting{serves: true}},
		{name: "the host ends", in: "account closed\n", err: `it said: "account closed"`},
		{name: "the host ends in our line", in: api.Preamble[:5], err: "EOF"},
		{name: "chatter without end", in: strings.Repeat("x", maxChatter+1), err: "65536"},
		{name: "chatter moves the cursor", in: "\x1b[2Jgone", err: `it said: "[2Jgone"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			g, err := readGreeting(bufio.NewReader(strings.NewReader(row.in)))
			if row.err == "" && (err != nil || g != row.want) {
				t.Errorf("%+v, error %v", g, err)
			}
			if row.err != "" && (!errors.Is(err, errNoGreeting) || !strings.Contains(err.Error(), row.err)) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func FuzzReadGreeting(f *testing.F) {
	f.Add([]byte("motd\n\x00vsnode-exec-1 abc\n" + api.Preamble + "rest"))
	f.Add([]byte("\x00vsnode-need-1 x86_64 0 zstd\nrest"))
	f.Add([]byte("\x00\x00\n\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		g, err := readGreeting(r)
		if err != nil {
			return
		}
		rest := r.Buffered() // b is small: all that is left is here, if it fits
		if len(b) < r.Size() && !bytes.HasSuffix(b[:len(b)-rest], []byte("\n")) {
			t.Fatal("it read on after the line that decides")
		}
		if g.serves && !bytes.Contains(b, []byte(api.Preamble)) {
			t.Fatal("no preamble, and it serves")
		}
	})
}
