"""Sentences by topic: enough of each, none twice, none long."""

from mechkit.data.topics import TOPICS


def test_every_topic_has_eight_short_sentences_of_its_own():
    sentences = [sentence for topic in TOPICS.values() for sentence in topic]
    assert {len(topic) for topic in TOPICS.values()} == {8}
    assert len(set(sentences)) == len(sentences) == 48
    assert all(4 <= len(sentence.split()) <= 9 for sentence in sentences)
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
