package main

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0": 0, "2.5": 2500 * time.Millisecond, "30s": 30 * time.Second, "1h5m": 65 * time.Minute,
		"-5": -5 * time.Second, "-5s": -5 * time.Second, "": -1, "soon": -1, "5 s": -1, "1e300": -1, "NaN": -1, "inf": -1,
	} {
		var got time.Duration
		if err := (*duration)(&got).Set(text); err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}
