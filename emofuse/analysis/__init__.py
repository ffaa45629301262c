"""What the streams of trained heads and caches are worth, for whom, and why: one question a module.

Everything here describes results. Nothing chooses a stream, an epoch or a threshold, so the test rows may be read.
`docs/analysis.md` says what each number means and what it cannot say.
"""
