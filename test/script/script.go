// Package script has the commands that scripts of several packages of tests use,
// beside those of testscript:
//
//	exits STATUS COMMAND…   run a command that must end with this exit status
//	fill FILE…              write environment variables' values into files: @NET@
//	fetch ADDRESS TEXT      a page must come from there and be TEXT (! fetch: no connection)
package script

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// listenTimeout is how long a program in a guest may take until it listens, on a machine
// that is emulated, too.
const listenTimeout = time.Minute

// Exits is the command exits.
func Exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// Fill is the command fill.
func Fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fill FILE…")
	}
	variable := regexp.MustCompile(`@[A-Z0-9]+@`)
	for _, name := range args {
		text := variable.ReplaceAllStringFunc(ts.ReadFile(name), func(v string) string { return ts.Getenv(strings.Trim(v, "@")) })
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// Fetch is the command fetch.
func Fetch(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 || neg != (len(args) == 1) {
		ts.Fatalf("usage: fetch ADDRESS TEXT, ! fetch ADDRESS")
	}
	if neg {
		address := args[0]
		if !strings.Contains(address, ":") {
			address += ":80"
		}
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			ts.Fatalf("%s answers", address)
		}
		return
	}
	ts.Check(WaitForPage(args[0], args[1]))
}

// WaitForPage waits until a page is as it should be.
func WaitForPage(address, want string) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	// A server that does not listen yet can only be tried again.
	for deadline := time.Now().Add(listenTimeout); ; time.Sleep(50 * time.Millisecond) {
		got, err := page(&client, "http://"+address+"/")
		if err == nil && got == want {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("from %s came %q, want %q: %w", address, got, want, err)
		}
	}
}

func page(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return "", errors.New(r.Status)
	}
	body, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(body)), err
}
