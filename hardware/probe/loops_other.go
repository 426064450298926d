//go:build !amd64 || purego

package probe

// floatLoops lists the versions that run here.
func floatLoops() []floats {
	g, _ := portable()
	return []floats{g}
}

// intLoops lists the versions that run here.
func intLoops() []ints {
	_, g := portable()
	return []ints{g}
}
