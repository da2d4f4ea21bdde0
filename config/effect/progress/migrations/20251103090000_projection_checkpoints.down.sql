DROP TABLE projection_checkpoints;
DROP FUNCTION keep_checkpoint_forward();
