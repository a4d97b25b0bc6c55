"""Keras's configs of the layers here, written and read.

    LSTM, LSTMCell, Bidirectional, TimeDistributed    Keras's layers of these names
    StackedLSTM of cells                              RNN, over StackedRNNCells or one LSTMCell
    StackedLSTM of layers                             Sequential

It knows no layer. A layer enters itself in ``classes`` and has two methods: ``_write(writer)``
gives its config, ``_read(reader, entry, size)`` makes it of an entry.

The configs are plain data. Reading one never imports or runs what it names: classes, objects and
activations are looked up in literal tables.

Sources: ``get_config`` and ``from_config`` of Keras 3.15.1 and tf_keras 2.21
(``src/layers/rnn/{lstm,rnn,stacked_rnn_cells,bidirectional,time_distributed}.py``,
``src/models/sequential.py``), and of Keras 1.2.2, 2.0.8, 2.2.4 and 2.3.1
(``keras/layers/{recurrent,wrappers}.py``, ``keras/legacy/interfaces.py``).
"""
