//go:build !linux

package world

import "time"

// nap falls back to a runtime timer where no finer sleep is at hand.
func nap(d time.Duration) { time.Sleep(d) }
