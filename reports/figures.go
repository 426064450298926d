package reports

// Figure is a picture with the words that go with it.
type Figure struct {
	Name    string // file name without extension
	Title   string
	Caption string // one sentence on how to read it
	Alt     string // what it shows, for those who cannot see it
	Empty   string // why there is nothing to draw
}

func (b *builder) figures() []Figure { return nil }
