"""The conformance kit: anybody's server and client, judged by numbered cases from the pages of the protocol.

``server.judge_server`` and ``client.judge_client`` run the cases, ``report.Report`` says what came of them; on the
command line it is ``wireproto conformance``. ``docs/conformance.md`` is its page. It takes neither pytest nor
hypothesis.
"""
