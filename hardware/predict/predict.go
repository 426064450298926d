// Package predict says how fast a language model runs on hardware that nobody
// here owns, how sure that is, and how wrong such predictions were on published
// measurements.
//
// The evidence is embedded: measured speeds that other people published
// (data/published_llm_speed.csv) and data sheets (data/device_specs.csv), each
// row with its source (data/README.md). Every figure of accuracy comes from
// predicting a row by a law that never saw the row's device:
//
//	rows, specs, err := predict.Published()
//	for _, b := range predict.Baselines(rows, predict.NewCatalogue(specs)) { ... } // simple models, by the public recipe
//	lo, hi, ok := predict.Interval("phone_soc", "npu", "decode")                   // bounds of the prior of that class
//
// # What it does not do
//
// It times nothing and simulates nothing: hardware/costmodel turns a law into
// the time of an operation, hardware/fitting fits a law to timings of one's own.
package predict
