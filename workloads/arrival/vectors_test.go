package arrival

import "time"

// Seed 42, name "golden", two sources, first four arrivals; see TestVectors.
var (
	vecPoisson  = []time.Duration{24031028, 85081002, 208258413, 234894490}
	vecGamma    = []time.Duration{105323338, 277397086, 429140248, 434621774}
	vecWeibull  = []time.Duration{1132225, 11611045, 67569731, 69017203}
	vecBursts   = []time.Duration{166578803, 438729682, 678725819, 687395370}
	vecPeriodic = []time.Duration{190383339, 199265246, 387210850, 397156069}
)
